"""One config, one model, one pair: the whole bounded run, from the first probe to the record."""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pytest_overfit.config.schema import OverfitConfig
from pytest_overfit.data.batch import fingerprint, freeze_batch
from pytest_overfit.run.build import import_root, instantiate
from pytest_overfit.run.device import choose_device, choose_threads, describe_device, peak_mib
from pytest_overfit.run.isolation import isolated, preserved, seed_everything
from pytest_overfit.run.loop import Curves, Observer, Plan, evaluate, evaluating, fit
from pytest_overfit.run.metrics import compare_predictions
from pytest_overfit.run.optim import GradientClipper, build_optimizer, freeze
from pytest_overfit.run.pictures import take_pictures
from pytest_overfit.run.probe import probe_supervision
from pytest_overfit.run.record import BatchRecord, Evaluation, FramePrediction, RunRecord
from pytest_overfit.run.sample import Batch, Sample
from pytest_overfit.run.schedule import Schedule, build_schedule
from pytest_overfit.run.task import Precision, TwoViewTask
from pytest_overfit.run.watch import GradientWatch, parameter_records
from pytest_overfit.suggest import shorten

Loss = Callable[[Any, Batch], Mapping[str, Any]]
LR_SCHEDULE, WEIGHT_DECAY_SCHEDULE = "optim.options.lr[0].scheduler", "optim.options.weight_decay[0].scheduler"
READ_EVERY = {"cpu": 5}  # steps between two bulk reads of the losses; on an accelerator each read is a sync
READ_EVERY_ACCELERATOR = 25


@dataclass(frozen=True)
class Outcome:
    """The trained model looked at: evaluation mode against training, predictions against ground truth."""

    evaluation: Evaluation | None
    frames: tuple[FramePrediction, ...]
    keys: tuple[str, ...]


Accept = Callable[[Outcome], bool]


def build_model(config: OverfitConfig) -> nn.Module:
    """Builds ``model`` of a config under the config's seed, leaving the global random state alone."""
    with (
        isolated(seed=config.seed, threads=torch.get_num_threads(), deterministic=False),
        import_root(config.path.parent),
    ):
        return instantiate(config.model, where="model")  # type: ignore[no-any-return]


def build_loss(config: OverfitConfig) -> Loss:
    """Builds ``loss`` of a config: a callable ``loss(predictions, batch)``."""
    with import_root(config.path.parent):
        return instantiate(config.loss, where="loss")  # type: ignore[no-any-return]


def dry_build(config: OverfitConfig, model: nn.Module, loss: Loss) -> str:
    """Builds everything a config names without training: one line that says what was built.

    Raises:
        OverfitError: the device is not there, a pattern freezes nothing, an optimizer or schedule cannot be built.
    """
    settings = config.overfit
    device = choose_device(settings.device, require_gpu=settings.require_gpu).device
    with preserved(model), import_root(config.path.parent):
        freeze(model, config.frozen_module_names)
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = build_optimizer(config.optimizer, trainable or model.parameters())
        for node, where in ((config.lr_schedule, LR_SCHEDULE), (config.weight_decay_schedule, WEIGHT_DECAY_SCHEDULE)):
            _schedule(node, where)
    count = sum(p.numel() for p in trainable)
    return f"{type(model).__name__} ({count:,} trainable), {type(loss).__name__}, {type(optimizer).__name__}, {device}"


def run_config(
    config: OverfitConfig,
    model: nn.Module,
    sample: Sample,
    *,
    limits: Mapping[str, float],
    accept: Accept = lambda outcome: True,
    loss: Loss | None = None,
    observers: Sequence[Observer] = (),
    workers: int = 1,
) -> RunRecord:
    """Trains ``model`` on one frozen sample as the config says, and returns what happened.

    The model, its gradients and flags, and every random generator come back as they were. Ctrl-C ends the run early:
    the record then says ``stop='interrupted'``.

    Args:
        config: budget, optimizer, precision, freezing.
        model: called as ``model(images=...)``.
        sample: what to train on.
        limits: criterion name -> value its term must stay below; the run may stop once all have held.
        accept: asked when the limits have held, with the model's outcome; False lets the run go on.
        loss: ``loss(predictions, batch)``; built from the config where it is None.
        observers: told of every step.
        workers: how many such processes share the CPU.
    """
    settings = config.overfit
    choice = choose_device(settings.device, require_gpu=settings.require_gpu)
    threads = choose_threads(settings.threads, workers=workers)
    with contextlib.ExitStack() as stack:
        stack.enter_context(preserved(model))
        stack.enter_context(isolated(seed=config.seed, threads=threads, deterministic=settings.deterministic))
        stack.enter_context(import_root(config.path.parent))
        run = _Run(config, model.to(choice.device), sample, loss or build_loss(config), choice.device)
        curves = run.train(limits, accept, observers)
        if config.logging.log_visuals:
            run.show(observers)
        return run.record(curves, notes=choice.note)


class _Run:
    """The live parts of one run; ``record`` turns them into plain numbers."""

    def __init__(
        self, config: OverfitConfig, model: nn.Module, sample: Sample, loss: Loss, device: torch.device
    ) -> None:
        self.config, self.sample = config, sample
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        batch = freeze_batch(sample.train, device)
        val = None if sample.val is None else freeze_batch(sample.val, device)
        precision = Precision(config.amp.enabled, getattr(torch, config.amp.dtype))
        self.task = TwoViewTask(model, loss, batch, val, device, precision)
        self.frozen = freeze(model, config.frozen_module_names)
        self.clip = GradientClipper(model, config.gradient_clip)
        self.watch = GradientWatch(model)
        self.initial = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.fingerprint = fingerprint(batch)
        self.supervision = probe_supervision(self.task) if config.overfit.probes.sensitivity else None
        self.optimizer: torch.optim.Optimizer | None = None
        self.outcome: Outcome | None = None

    def train(self, limits: Mapping[str, float], accept: Accept, observers: Sequence[Observer]) -> Curves:
        config = self.config
        trainable = [p for p in self.task.model.parameters() if p.requires_grad]
        if not trainable:
            return Curves(stop="no_trainable_parameters")
        self.optimizer = build_optimizer(config.optimizer, trainable)

        def accepted(curves: Curves) -> bool:
            self.outcome = self.look(curves)
            return accept(self.outcome)

        plan = Plan(
            max_steps=config.planned_steps,
            max_seconds=config.overfit.budget.max_seconds,
            hold_steps=config.overfit.budget.hold_steps,
            limits=limits,
            val_every=config.val_epoch_freq * config.overfit.steps_per_epoch,
            gradient_every=config.overfit.probes.gradient_every,
            read_every=READ_EVERY.get(self.task.device.type, READ_EVERY_ACCELERATOR),
            lr=_schedule(config.lr_schedule, LR_SCHEDULE),
            weight_decay=_schedule(config.weight_decay_schedule, WEIGHT_DECAY_SCHEDULE),
            accept=accepted,
        )
        seed_everything(config.seed)
        return fit(
            self.task, self.optimizer, plan, watch=self.watch, clip=self.clip, frozen=self.frozen, observers=observers
        )

    def look(self, curves: Curves) -> Outcome:
        """The model as it is now, in evaluation mode, against training and against the ground truth."""
        task = self.task
        with evaluating(task.model):
            predictions = task.predict(task.batch)
            frames = compare_predictions(predictions, task.batch)
        evaluation = None
        if task.val_batch is not None and curves.steps:
            evaluation = Evaluation(train=_terms_of(curves.steps[-1]), val=evaluate(task, task.val_batch))
        keys = tuple(map(str, predictions)) if isinstance(predictions, Mapping) else (type(predictions).__name__,)
        return Outcome(evaluation, frames, keys)

    def show(self, observers: Sequence[Observer]) -> None:
        """Gives the observers the frames as the model sees them now, in evaluation mode."""
        with evaluating(self.task.model):
            pictures = take_pictures(self.task.predict(self.task.batch), self.task.batch)
        for observer in observers:
            observer.on_pictures(pictures)

    def record(self, curves: Curves, *, notes: str | None) -> RunRecord:
        """Everything as plain numbers. Takes a last look at the model unless the run ended with one."""
        config, task = self.config, self.task
        outcome = self.outcome if curves.stop == "passed" and self.outcome else self.look(curves)
        rows = curves.steps
        return RunRecord(
            name=config.exp_name,
            seed=config.seed,
            device=describe_device(task.device),
            planned_steps=config.planned_steps,
            steps=len(rows),
            stop=curves.stop,
            seconds=curves.seconds,
            curves=_columns(rows, lambda name: not _is_extra(name)),
            val_steps=tuple(step for step, _ in curves.val),
            val_curves=_columns([terms for _, terms in curves.val], lambda _: True),
            learning_rate=_columns(rows, lambda name: name == "lr").get("lr", ()),
            weight_decay=_columns(rows, lambda name: name == "weight_decay").get("weight_decay", ()),
            grad_norms={
                name.removeprefix("grad_norm/"): curve
                for name, curve in _columns(rows, lambda name: name.startswith("grad_norm/")).items()
            },
            parameters=parameter_records(
                task.model, self.initial, self.optimizer, self.watch.largest(), self.frozen.frozen_by
            ),
            freeze_matches=self.frozen.matches,
            non_finite=curves.non_finite,
            batch=BatchRecord(
                fingerprint_start=self.fingerprint,
                fingerprint_end=fingerprint(task.batch),
                redraw_differences=self.sample.differences,
                randomness=config.randomness,
            ),
            supervision=self.supervision,
            evaluation=outcome.evaluation,
            predictions=outcome.frames,
            prediction_keys=outcome.keys,
            environment={
                "python": platform.python_version(),
                "torch": torch.__version__,
                "threads": str(torch.get_num_threads()),
                "precision": config.amp.dtype if config.amp.enabled else "float32",
            },
            peak_mib=peak_mib(task.device),
            notes=(*_notes(notes, self.clip), *config.notes),
        )


def _notes(note: str | None, clip: GradientClipper) -> Iterator[str]:
    if note:
        yield note
    if clip.unclaimed:
        yield f"optim.gradient_clip: no group clips {shorten(clip.unclaimed)}"


def _schedule(node: Mapping[str, Any] | None, where: str) -> Schedule | None:
    return None if node is None else build_schedule(node, where=where)


def _is_extra(name: str) -> bool:
    return name in ("lr", "weight_decay") or name.startswith("grad_norm/")


def _terms_of(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if not _is_extra(name)}


def _columns(rows: Sequence[Mapping[str, float]], wanted: Callable[[str], bool]) -> dict[str, tuple[float, ...]]:
    names = [name for name in (rows[0] if rows else ()) if wanted(name)]
    return {name: tuple(row.get(name, math.nan) for row in rows) for name in names}
