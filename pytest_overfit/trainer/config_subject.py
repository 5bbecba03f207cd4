"""A config as what is trained and what it has to reach: a ``Subject`` and its settings."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.sample import Sample
from pytest_overfit.run.subject import Adapter, Application, Subject
from pytest_overfit.run.task import scalar_terms
from pytest_overfit.settings.settings import OverfitSettings
from pytest_overfit.trainer.build import (
    KEYS,
    LR_SCHEDULE,
    WEIGHT_DECAY_SCHEDULE,
    ModelOfConfig,
    at_home,
    build_loss,
    build_optimizer,
    schedule_of,
)
from pytest_overfit.trainer.config import OverfitConfig, TrainerConfig


class Accumulated:
    """``loss(predictions, batch)`` over the parts of a batch.

    Gradients of parts that are divided by their number and added up are those of the parts' mean loss. A model whose
    samples see each other (batch statistics) still sees the whole batch here, which a trainer's would not.

    Example:
        >>> loss = Accumulated(lambda predictions, batch: {"objective": predictions["x"].mean()}, parts=2)
        >>> loss({"x": torch.tensor([1.0, 3.0])}, {"images": torch.zeros(2)})["objective"]
        tensor(2.)
    """

    def __init__(self, loss: Callable[[Any, Mapping[str, Any]], Any], parts: int) -> None:
        self.loss, self.parts = loss, parts

    def __call__(self, predictions: Any, batch: Mapping[str, Any]) -> Any:
        samples = len(batch["images"])
        if samples < self.parts:
            return self.loss(predictions, batch)
        parts, targets = (split_samples(nest, samples, self.parts) for nest in (predictions, batch))
        losses = [scalar_terms(self.loss(part, target)) for part, target in zip(parts, targets, strict=True)]
        names = dict.fromkeys(name for terms in losses for name in terms)  # a part may have nothing for one
        return {name: sum(terms[name] for terms in losses if name in terms) / self.parts for name in names}


def split_samples(nest: Any, samples: int, parts: int) -> list[Any]:
    """A nest of tensors cut along its leading axis of ``samples`` into ``parts``; other leaves go into every part.

    Example:
        >>> split_samples({"x": torch.arange(4), "names": ["a", "b", "c", "d"], "stages": 3}, 4, 2)[1]
        {'x': tensor([2, 3]), 'names': ['c', 'd'], 'stages': 3}
    """
    edges = [round(samples * index / parts) for index in range(parts + 1)]
    return [_part(nest, samples, start, end) for start, end in itertools.pairwise(edges)]


def _part(nest: Any, samples: int, start: int, end: int) -> Any:
    if isinstance(nest, Tensor):
        return nest[start:end] if nest.dim() and nest.shape[0] == samples else nest
    if isinstance(nest, Mapping):
        return {key: _part(value, samples, start, end) for key, value in nest.items()}
    if isinstance(nest, (list, tuple)):
        if len(nest) == samples and not any(isinstance(item, Tensor) for item in nest):
            return nest[start:end]
        made = [_part(item, samples, start, end) for item in nest]
        return type(nest)(*made) if hasattr(nest, "_fields") else type(nest)(made)
    return nest


def settings_of(config: OverfitConfig) -> OverfitSettings:
    """What a run under a config may do and must reach."""
    overfit = config.overfit
    seeds = overfit.seeds or (config.seed,)
    budget = replace(overfit.budget, max_steps=config.planned_steps)
    return replace(overfit, seeds=seeds, budget=budget, freeze=(*config.frozen_module_names, *overfit.freeze))


def subject_of(
    config: OverfitConfig,
    model: Any,
    sample: Sample,
    *,
    loss: Any = None,
    optimizer: Any = None,
    step: Callable[..., Any] | None = None,
) -> Subject:
    """What a config trains. What the config itself names is built once the run begins: see ``adapter_of``.

    Args:
        model: a module, or a factory that is called anew for every seed; None: the config's, built for every seed.
        sample: as the model gets it.
        loss, optimizer, step: in place of what the config names.
    """
    return Subject(
        model=ModelOfConfig(config) if model is None else model,
        data=replace(sample, randomness=(*config.randomness, *sample.randomness)),
        loss=loss,
        optimizer=optimizer,
        step=step,
        name=config.exp_name,
        val_every=config.val_epoch_freq * config.overfit.steps_per_epoch,
        shows_pictures=config.logging.log_visuals,
        keys={**KEYS, "clip_grad_norm": "overfit.clip_grad_norm"} if config.overfit.clip_grad_norm else KEYS,
        notes=config.notes,
    )


def adapter_of(config: OverfitConfig, adapt: Adapter, application: Application) -> Adapter:
    """Builds at the start of a run what the config names, and keeps its modules importable until the run's end.

    Args:
        adapt: knows the objects of other libraries, which bring a loss, an optimizer and a schedule of their own.
        application: what the predictions of the config's models mean.
    """

    @contextlib.contextmanager
    def prepared(subject: Subject, settings: OverfitSettings) -> Iterator[Subject]:
        made = subject.built()
        notes = subject.model.notes if isinstance(subject.model, ModelOfConfig) else ()
        data = replace(subject.data, notes=(*notes, *subject.data.notes))
        modules = made.model.modules() if isinstance(made.model, nn.Module) else ()
        # Where there is a process group, SyncBatchNorm refuses the CPU.
        group = not any(isinstance(module, nn.SyncBatchNorm) for module in modules)
        with at_home(config, group=group), adapt(replace(made, data=data), settings) as adapted:
            yield _completed(config, subject, adapted, application)

    return prepared


def _completed(config: OverfitConfig, given: Subject, adapted: Subject, application: Application) -> Subject:
    if adapted.loss is not given.loss or adapted.step is not given.step:
        return _of_its_own(adapted, "the loss, the step and the optimizer")
    schedules = {
        "lr": schedule_of(config.lr_schedule, LR_SCHEDULE),
        "weight_decay": schedule_of(config.weight_decay_schedule, WEIGHT_DECAY_SCHEDULE),
    }
    trained = replace(
        adapted,
        optimizer=partial(build_optimizer, config.optimizer) if given.optimizer is None else given.optimizer,
        schedules={name: schedule for name, schedule in schedules.items() if schedule is not None},
        clip=config.gradient_clip if given.step is None else (),
        amp=config.amp,
    )
    batch = adapted.data.train
    if given.loss is None and adapted.generated is not None and not (isinstance(batch, Mapping) and "images" in batch):
        return _of_its_own(trained, "the loss")
    loss = build_loss(config) if given.loss is None else given.loss
    parts = 1 if config.trainer is None else config.trainer.accum_steps
    named = _Named(loss if parts < 2 else Accumulated(loss, parts))
    trained = replace(trained, remarks=lambda: _unlogged(config.trainer, named.names))
    return replace(trained, loss=named, held=(loss,), predict=predict, application=application)


def predict(model: Any, batch: Mapping[str, Any]) -> Any:
    """The predictions of a VGGT-style model, which is called with the images alone.

    Raises:
        OverfitError: the batch has none.
    """
    if not isinstance(batch, Mapping) or "images" not in batch:
        found = f"the keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
        raise OverfitError(
            found, where="the batch of a config's model", allowed="a mapping with images, (B, S, 3, H, W) in 0 to 1"
        )
    return model(images=batch["images"])


def _of_its_own(subject: Subject, parts: str) -> Subject:
    """A subject that brings these parts; what it cannot be evaluated by is left out."""
    verb = "are those" if " and " in parts else "is that"
    note = f"{parts} {verb} of {type(subject.model).__name__}, not the config's"
    data: Sample = subject.data
    if subject.step is not None and subject.loss is None:
        data = replace(data, val=None)
    return replace(subject, data=data, notes=(*subject.notes, note))


class _Named:
    """A loss, and the names of what it has given first."""

    def __init__(self, loss: Callable[[Any, Any], Any]) -> None:
        self.loss = loss
        self.names: tuple[str, ...] = ()

    def __call__(self, predictions: Any, batch: Any) -> Any:
        given = self.loss(predictions, batch)
        if not self.names:
            self.names = tuple(map(str, given)) if isinstance(given, Mapping) else ("a scalar",)
        return given


def _unlogged(trainer: TrainerConfig | None, names: tuple[str, ...]) -> Iterator[str]:
    """Scalars that the trainer is told to log and the loss does not give: it leaves them out without a word."""
    if trainer is None or not names:
        return
    if absent := [name for name in trainer.logged if name not in names]:
        named = "; the loss calls it objective" if "loss_objective" in absent else ""
        yield f"logging.scalar_keys_to_log.train: the loss gives no {', '.join(absent)}{named}"
    if "objective" not in names:
        yield f"the loss gives no objective, which trainers minimise: {', '.join(names)}"
