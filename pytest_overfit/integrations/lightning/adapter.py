"""A LightningModule as the parts of a run: its own step, loss and optimizers, with a stand-in for the Trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from pytest_overfit.errors.asking import Refused, Unanswerable, users_code
from pytest_overfit.integrations.lightning.module_parts import (
    Scheduled,
    configured,
    discarded,
    first_of,
    is_datamodule,
    overrides,
    transfers,
)
from pytest_overfit.integrations.lightning.stand_in import EPOCHS, Trainer, missing_told
from pytest_overfit.integrations.lightning.training_loop import Loop
from pytest_overfit.run.gradient_watch import named_outputs
from pytest_overfit.run.isolation import restored_process
from pytest_overfit.run.optim import collect_optimizers
from pytest_overfit.run.snapshot import Snapshot, preserved
from pytest_overfit.run.subject import NOT_GIVEN, Subject
from pytest_overfit.run.training import planned_steps
from pytest_overfit.settings.settings import AmpConfig, OverfitSettings


def called_modules(model: nn.Module, step: Callable[[], Any]) -> Any:
    """The model where the step calls it, else the outermost submodules that it calls: one, or name -> module.

    A module without parameters, or that returns nothing but scalars, is a loss or a metric and does not count. Where
    the step fails, or calls none, it is the model: whoever runs it next reports the error.
    """
    depth = 0
    found: dict[str, nn.Module] = {}

    def enter(module: nn.Module, args: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal depth
            depth -= 1
            predicts = any(tensor.numel() > 1 for _, tensor in named_outputs(output))
            if depth == 0 and predicts and any(True for _ in module.parameters()):
                found.setdefault(name, module)

        return hook

    handles = []
    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave(name), always_call=True),
        ]
    try:
        with users_code():
            step()
    except (Refused, Unanswerable):
        return model
    finally:
        for handle in handles:
            handle.remove()
    if not found or "" in found:
        return model
    return next(iter(found.values())) if len(found) == 1 else found


KEYS = {"lr": "it in configure_optimizers()", "clip_grad_norm": "Trainer(gradient_clip_val=...)"}
PRECISIONS = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}


def brings_data(module: Any) -> bool:
    """Whether a module has training data of its own."""
    return overrides(module, "train_dataloader")


@contextlib.contextmanager
def prepared(subject: Subject, settings: OverfitSettings) -> Iterator[Subject]:
    """The parts of a run of a LightningModule; module and DataModule come back as they were.

    A loss or a step of the user's own makes it a module like any other.
    """
    if subject.loss is not None or subject.step is not None:
        yield subject
        return
    module = subject.model
    datamodule = subject.data if is_datamodule(subject.data) else None
    own, steps = vars(module).get("_trainer"), planned_steps(settings)
    trainer = Trainer(module, _library_of(module), max_steps=steps, own=own, datamodule=datamodule)
    loop = Loop(module, trainer, transfers(module, datamodule))
    with (
        preserved(module, keep_trained=settings.keep_trained),
        _attached(module, trainer, loop),
        _set_up(datamodule, trainer, trainer),
        _set_up(module, None, trainer),
    ):
        with missing_told(trainer):
            data, notes = _data(subject.data, module, datamodule)
            optimizers, scheduled = _optimizers(subject, module)
            trainer.take(optimizers, scheduled, _library_of(module))
            module.on_fit_start()
            module.on_train_start()
        yield replace(
            subject,
            data=data,
            loss=loop.loss if module.automatic_optimization else None,
            optimizer=optimizers or None,
            step=loop.step,
            notes=(*subject.notes, *notes, *_notes(module, trainer)),
            amp=_precision(trainer),
            keys={**KEYS, **subject.keys},
            discarded=discarded(module.training_step),
            listened=lambda batch: _listened(module, loop, optimizers, batch),
        )


def _library_of(module: Any) -> str:
    home = next(kind.__module__ for kind in type(module).__mro__ if kind.__name__ == "LightningModule")
    return home.removesuffix(".core.module")


@contextlib.contextmanager
def _attached(module: Any, trainer: Trainer, loop: Loop) -> Iterator[None]:
    """The module, and the LightningModules within it, log and look up to the stand-in."""
    within = [each for each in module.modules() if "_trainer" in vars(each)]
    before = [(each, {name: vars(each)[name] for name in ("_trainer", "log") if name in vars(each)}) for each in within]
    for each in within:
        vars(each).update(_trainer=trainer, log=loop.log)
    try:
        yield
    finally:
        for each, values in before:
            vars(each).pop("log", None)
            vars(each).update(values)


@contextlib.contextmanager
def _set_up(home: Any, trainer: Trainer | None, asked: Trainer) -> Iterator[None]:
    """What ``Trainer.fit`` calls before and after: of a DataModule (with the Trainer), or of a module."""
    if home is None:
        yield
        return
    kept = dict(vars(home))
    try:
        if trainer is not None:
            home.trainer = trainer
        with missing_told(asked):
            home.prepare_data()
            home.setup("fit")
            if trainer is None:
                home.configure_model()
        yield
        with missing_told(asked):
            home.teardown("fit")
    finally:
        if trainer is not None:  # what a module gets is taken back with all of its state
            vars(home).clear()
            vars(home).update(kept)


def _data(given: Any, module: Any, datamodule: Any) -> tuple[Any, tuple[str, ...]]:
    source = datamodule
    if source is None and given is NOT_GIVEN and brings_data(module):
        source = module
    if source is None:
        return given, ()
    return first_of(source), (
        f"the first batch of {type(source).__name__}.train_dataloader() is trained on; it is drawn once",
    )


def _optimizers(subject: Subject, module: Any) -> tuple[list[Optimizer], list[Scheduled]]:
    if subject.optimizer is not None:
        trainable = [p for p in module.parameters() if p.requires_grad]
        return collect_optimizers(subject.optimizer, trainable)[1], []
    if not overrides(module, "configure_optimizers"):
        return [], []
    return configured(module.configure_optimizers(), automatic=module.automatic_optimization)


def _precision(trainer: Trainer) -> AmpConfig | None:
    dtype = PRECISIONS.get(str(trainer.precision))
    return None if dtype is None else AmpConfig(True, dtype)  # type: ignore[arg-type]


def _notes(module: Any, trainer: Trainer) -> Iterator[str]:
    if any(scheduled.interval == "epoch" for scheduled in trainer.lr_scheduler_configs):
        yield (
            f"an epoch counts {trainer.num_training_batches} steps, a run {min(EPOCHS, trainer.max_steps)} epochs: "
            "schedules step accordingly"
        )
    for scheduled in trainer.lr_scheduler_configs:
        if scheduled.reduce_on_plateau and module.automatic_optimization:
            yield f"{type(scheduled.scheduler).__name__} steps only where {scheduled.monitor} is logged in training"
    if overrides(module, "configure_callbacks"):
        yield "configure_callbacks() is not called: callbacks belong to a Trainer"
    if getattr(trainer.own, "accumulate_grad_batches", 1) != 1:
        yield "gradients are not accumulated: there is one batch"
    if not trainer.optimizers:
        yield "configure_optimizers() gives no optimizer: nothing is updated"


def _listened(module: nn.Module, loop: Loop, optimizers: list[Optimizer], batch: Any) -> Any:
    """The modules that a training step calls itself; what the step does to find out is undone."""
    snapshot = Snapshot()
    for thing in (module, *optimizers, loop):
        snapshot.add(thing)
    with restored_process():
        try:
            return called_modules(module, lambda: loop.step(batch))
        finally:
            snapshot.restore()
