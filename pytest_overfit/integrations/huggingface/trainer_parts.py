"""A ``transformers.Trainer`` as the parts of a run: its model, loss, collator, data, optimizer and schedule."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from pytest_overfit.errors import OverfitError
from pytest_overfit.integrations.huggingface.generation import said_again
from pytest_overfit.integrations.huggingface.trainer_step import TrainerStep
from pytest_overfit.run.batch_differences import compare_batches
from pytest_overfit.run.optim import collect_optimizers
from pytest_overfit.run.snapshot import preserved
from pytest_overfit.run.subject import NOT_GIVEN, Subject
from pytest_overfit.run.training import planned_steps
from pytest_overfit.settings.settings import AmpConfig, OverfitSettings

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
        raise OverfitError(
            f"a {'loss' if subject.step is None else 'step'} beside a {type(trainer).__name__}",
            where="step" if subject.loss is None else "loss",
            allowed="a Trainer, whose compute_loss is the loss, or its model with a loss or step of your own",
            hint="override compute_loss or training_step in a subclass, or pass trainer.model",
        )
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
        raise OverfitError(
            f"{type(trainer).__name__} has no train_dataset",
            where="data",
            allowed="Trainer(train_dataset=...), or a batch beside the Trainer: overfit(trainer, batch)",
        )
    loader = trainer.get_train_dataloader()
    sampler = getattr(loader, "batch_sampler", None)
    if sampler is not None:
        if (first := next(iter(sampler), None)) is None:
            raise OverfitError(
                "the loader gives no batch",
                where="train_dataset",
                allowed="as many examples as fill one batch",
                hint="lower per_device_train_batch_size, or switch dataloader_drop_last off",
            )
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
