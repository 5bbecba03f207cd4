"""A ``transformers.Trainer`` as the parts of a run: its model, data, loss, optimizer, schedule, and one step of it."""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pytest_overfit.errors import OverfitError
from pytest_overfit.integrations.huggingface.pretrained import said_again
from pytest_overfit.run.batch_differences import compare_batches
from pytest_overfit.run.optim import collect_optimizers
from pytest_overfit.run.snapshot import preserved
from pytest_overfit.run.subject import NOT_GIVEN, Subject
from pytest_overfit.run.training import planned_steps
from pytest_overfit.run.update import Detached
from pytest_overfit.settings.settings import AmpConfig, OverfitSettings


class TrainerStep:
    """The step and the loss of a Trainer, without its loop.

    Args:
        scheduler: stepped after every step; None: the learning rate stays.
        own: the Trainer's class has a ``training_step`` of the user's, which goes backward itself.
    """

    def __init__(self, trainer: Any, optimizer: Optimizer, scheduler: Any, *, own: bool) -> None:
        self.trainer, self.optimizer, self.own = trainer, optimizer, own
        self.scheduler = None if isinstance(scheduler, ReduceLROnPlateau) else scheduler
        self.logged: dict[str, Any] = {}
        acts = bool(trainer.args.fp16) and trainer.args.device.type == "cuda"
        self.scaler = torch.amp.GradScaler("cuda" if acts else "cpu", enabled=acts)
        self.counts = "num_items_in_batch" in inspect.signature(trainer.compute_loss).parameters

    def step(self, batch: Any) -> Any:
        """Zero, forward, backward, clip, step, schedule."""
        trainer, model = self.trainer, self.trainer.model
        self.optimizer.zero_grad()
        if self.own:
            objective = trainer.training_step(model, _shallow(batch), *self._count(batch))
        else:
            objective = self._loss(batch)
            if not objective.requires_grad:
                raise Detached
            self.scaler.scale(objective).backward()
            if self.scaler.is_enabled():
                self.scaler.unscale_(self.optimizer)
        if trainer.args.max_grad_norm:
            nn.utils.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
        if self.scaler.is_enabled() and not self.own:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        trainer.state.global_step += 1
        return {**self.logged, "objective": objective}

    def loss(self, model: Any, batch: Any) -> Any:
        """The Trainer's loss of one batch, and what it logged."""
        return {"objective": self._loss(batch), **self.logged}

    def log(self, logs: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """``Trainer.log``: numbers become terms of the run, and reach no callback."""
        plain = {name: value.detach() if isinstance(value, Tensor) else value for name, value in logs.items()}
        self.logged.update({name: v for name, v in plain.items() if isinstance(v, (int, float, Tensor))})

    def state_dict(self) -> dict[str, Any]:
        """What goes on from step to step, beside the model and the optimizer."""
        schedule = None if self.scheduler is None else copy.deepcopy(self.scheduler.state_dict())
        state = {"schedule": schedule, "scaler": self.scaler.state_dict()}
        return {**state, "global_step": self.trainer.state.global_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.scheduler is not None:
            self.scheduler.load_state_dict(copy.deepcopy(state["schedule"]))
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.trainer.state.global_step = state["global_step"]
        self.logged.clear()

    def _loss(self, batch: Any) -> Any:
        counted = {"num_items_in_batch": self._count(batch)[0]} if self.counts else {}
        return self.trainer.compute_loss(self.trainer.model, _shallow(batch), **counted)

    def _count(self, batch: Any) -> tuple[Any]:
        """The number of labels in a batch, where this version of the Trainer counts them."""
        samples = getattr(self.trainer, "get_batch_samples", None)
        if samples is None or not self.counts:
            return (None,)
        takes_device = "device" in inspect.signature(samples).parameters
        device = (self.trainer.model.device,) if takes_device else ()
        return (samples(iter([batch]), 1, *device)[1],)


def _shallow(batch: Any) -> Any:
    """A Trainer takes entries out of its batch."""
    return copy.copy(batch) if isinstance(batch, Mapping) else batch


KEYS = {"lr": "TrainingArguments(learning_rate=...)", "clip_grad_norm": "TrainingArguments(max_grad_norm=...)"}


def module_of(trainer: Any) -> Any:
    """Its model."""
    return trainer.model


def brings_data(trainer: Any) -> bool:
    """A Trainer has a training set; where it has none, its own error says so."""
    return True


@contextlib.contextmanager
def prepared(subject: Subject, settings: OverfitSettings) -> Iterator[Subject]:
    """The parts of a run of a Trainer; it is left as it was, and writes, logs and reports nothing.

    Raises:
        OverfitError: a loss or a step is given beside it, or it has no training data.
    """
    trainer = subject.model
    if subject.loss is not None or subject.step is not None:
        found = f"a {'loss' if subject.step is None else 'step'} beside a {type(trainer).__name__}"
        allowed = "a Trainer, whose compute_loss is the loss, or its model with a loss or step of your own"
        hint = "override compute_loss or training_step in a subclass, or pass trainer.model"
        raise OverfitError(found, where="step" if subject.loss is None else "loss", allowed=allowed, hint=hint)
    if not isinstance(trainer.model, nn.Module):
        raise OverfitError(f"{type(trainer).__name__} has no model", where="model", allowed="Trainer(model=...)")
    steps = planned_steps(settings)
    optimizers = [each for each in (trainer.optimizer, trainer.lr_scheduler) if each is not None]
    with preserved(trainer.model, *optimizers, keep_trained=settings.keep_trained), _untouched(trainer):
        batch, notes = (subject.data, ()) if subject.data is not NOT_GIVEN else _first_batch(trainer)
        if subject.optimizer is None:
            trainer.create_optimizer_and_scheduler(num_training_steps=steps)
            optimizer, scheduler = trainer.optimizer, trainer.lr_scheduler
        else:
            trainable = [p for p in trainer.model.parameters() if p.requires_grad]
            (optimizer,), scheduler = collect_optimizers(subject.optimizer, trainable)[1], None
        step = TrainerStep(trainer, optimizer, scheduler, own=_overridden(trainer, "training_step"))
        trainer.log = step.log
        yield replace(
            subject,
            model=trainer.model,
            data=batch,
            loss=step.loss,
            optimizer=optimizer,
            step=step.step,
            notes=(*subject.notes, *notes, *_notes(trainer, step, steps)),
            amp=_precision(trainer.args),
            keys={**KEYS, **subject.keys},
            generated=partial(said_again, trainer.model),
        )


@contextlib.contextmanager
def _untouched(trainer: Any) -> Iterator[None]:
    """A Trainer, its state and its accelerator come back as they were."""
    accelerator = trainer.accelerator
    kept = [(thing, dict(vars(thing))) for thing in (trainer, trainer.state)]
    loaders, accumulated = list(accelerator._dataloaders), accelerator.gradient_accumulation_steps
    try:
        accelerator.gradient_accumulation_steps = trainer.current_gradient_accumulation_steps = 1
        yield
    finally:
        accelerator._dataloaders[:] = loaders
        accelerator.gradient_accumulation_steps = accumulated
        for thing, values in kept:
            vars(thing).clear()
            vars(thing).update(values)


def _first_batch(trainer: Any) -> tuple[Any, tuple[str, ...]]:
    """The first batch of the training set, collated once more to see whether the collator is random.

    The loader's sampler and collator are used without its workers.
    """
    if trainer.train_dataset is None and not _overridden(trainer, "get_train_dataloader"):
        allowed = "Trainer(train_dataset=...), or a batch beside the Trainer: overfit(trainer, batch)"
        raise OverfitError(f"{type(trainer).__name__} has no train_dataset", where="data", allowed=allowed)
    loader = trainer.get_train_dataloader()
    sampler = getattr(loader, "batch_sampler", None)
    if sampler is not None:
        if (first := next(iter(sampler), None)) is None:
            found = "the loader gives no batch"
            hint = "lower per_device_train_batch_size, or switch dataloader_drop_last off"
            raise OverfitError(found, where="train_dataset", allowed="as many examples as fill one batch", hint=hint)
        examples = [loader.dataset[index] for index in first]
    else:
        examples = list(itertools.islice(loader.dataset, trainer.args.per_device_train_batch_size))
    batch, second = loader.collate_fn(list(examples)), loader.collate_fn(list(examples))
    changed = [difference.key for difference in compare_batches(batch, second)]
    notes = [f"trained on the first batch of train_dataset: {len(examples)} examples"]
    if changed:
        notes.append(f"the collator draws anew at every call ({', '.join(changed)}): its first draw is trained on")
    return batch, tuple(notes)


def _overridden(trainer: Any, name: str) -> bool:
    """Whether a method is the user's, not the library's."""
    home = next(kind for kind in type(trainer).__mro__ if name in vars(kind))
    return home.__module__.partition(".")[0] != "transformers"


def _precision(args: Any) -> AmpConfig | None:
    if args.bf16:
        return AmpConfig(True, "bfloat16")
    return AmpConfig(True, "float16") if args.fp16 else None


def _notes(trainer: Any, step: TrainerStep, steps: int) -> Iterator[str]:
    args = trainer.args
    if step.scheduler is not None and args.lr_scheduler_type != "constant":
        kind = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
        yield f"the schedule ({kind}) spans the {steps} steps of the run"
    if trainer.lr_scheduler is not None and step.scheduler is None:
        yield f"{type(trainer.lr_scheduler).__name__} is not stepped: nothing is evaluated here"
    if args.gradient_accumulation_steps != 1:
        yield f"gradients are not accumulated over {args.gradient_accumulation_steps} batches: there is one"
    if args.label_smoothing_factor:
        yield f"labels are smoothed by {args.label_smoothing_factor:g}: the loss has a floor above 0"
