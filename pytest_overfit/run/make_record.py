"""A bounded run of any task, from live parts to a record of plain numbers."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pytest_overfit.run.batch import fingerprint
from pytest_overfit.run.columns import columns_of, curves_of
from pytest_overfit.run.device import describe_device, peak_mib
from pytest_overfit.run.gradient_watch import GradientWatch, parameter_records
from pytest_overfit.run.loop import Curves
from pytest_overfit.run.optim import Freezing
from pytest_overfit.run.record import BatchRecord, Evaluation, FramePrediction, Hang, RunRecord
from pytest_overfit.run.supervision_record import Supervision
from pytest_overfit.run.task import Task

READ_EVERY = {"cpu": 5}  # steps between two bulk reads of the losses; on an accelerator each read is a sync
READ_EVERY_ACCELERATOR = 25


@dataclass(frozen=True)
class Outcome:
    """The trained model looked at: evaluation mode against training, predictions against ground truth."""

    evaluation: Evaluation | None = None
    frames: tuple[FramePrediction, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass
class Parts:
    """The live parts of one run."""

    name: str
    seed: int
    planned_steps: int
    task: Task
    watch: GradientWatch
    initial: Callable[[Tensor], Tensor | None]
    fingerprint: str
    differences: tuple[str, ...] = ()
    draws: int = 1
    changed_at: int | None = None
    written: str | None = None
    randomness: tuple[str, ...] = ()
    frozen: Freezing = field(default_factory=Freezing)
    optimizers: Sequence[Optimizer] = ()
    supervision: Supervision | None = None
    notes: tuple[str, ...] = ()
    expected: str = ""  # memory, in words
    gradient_every: int = 1


def read_every(device: torch.device) -> int:
    """Steps between two bulk reads of the losses on a device."""
    return READ_EVERY.get(device.type, READ_EVERY_ACCELERATOR)


def hung_record(hang: Hang, curves: Curves | None, *, name: str, seed: int, planned_steps: int) -> RunRecord:
    """The record of a run whose code did not come back: what was trained until then, and where it hangs."""
    done = curves or Curves()
    stack = (f"stack: {' < '.join(hang.stack)}",) if len(hang.stack) > 1 else ()
    return RunRecord(
        name=name,
        seed=seed,
        device="",
        planned_steps=planned_steps,
        stop="hung",
        seconds=hang.seconds,
        hung=hang,
        val_steps=tuple(step for step, _ in done.val),
        val_curves=columns_of([terms for _, terms in done.val]),
        notes=stack,
        **curves_of(done.steps),
    )


def make_record(parts: Parts, curves: Curves, outcome: Outcome, notes: Sequence[str]) -> RunRecord:
    """Everything as plain numbers."""
    task = parts.task
    return RunRecord(
        name=parts.name,
        seed=parts.seed,
        device=describe_device(task.device),
        planned_steps=parts.planned_steps,
        stop=curves.stop,
        seconds=curves.seconds,
        **curves_of(curves.steps),
        val_steps=tuple(step for step, _ in curves.val),
        val_curves=columns_of([terms for _, terms in curves.val]),
        parameters=parameter_records(
            task.model, parts.initial, parts.optimizers, parts.watch.largest(), parts.frozen.frozen_by
        ),
        freeze_matches=parts.frozen.matches,
        non_finite=curves.non_finite,
        batch=BatchRecord(
            fingerprint_start=parts.fingerprint,
            fingerprint_end=fingerprint(task.batch),
            redraw_differences=parts.differences,
            randomness=parts.randomness,
            draws=parts.draws,
            changed_at=parts.changed_at,
            written=parts.written,
        ),
        supervision=parts.supervision,
        evaluation=outcome.evaluation,
        predictions=outcome.frames,
        prediction_keys=outcome.keys,
        environment={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": str(torch.get_num_threads()),
            "precision": str(task.precision.dtype).removeprefix("torch.") if task.precision.enabled else "float32",
            **({"memory needed": parts.expected} if parts.expected else {}),
            **({"gradients read": f"every {parts.gradient_every} steps"} if parts.gradient_every > 1 else {}),
            **({} if task.device.type == "cpu" else {"losses read": f"every {READ_EVERY_ACCELERATOR} steps"}),
        },
        peak_mib=peak_mib(task.device),
        notes=tuple(notes),
    )


def record_of(outcome: Outcome, curves: Curves) -> RunRecord:
    """A record of an outcome and the curves so far: enough to judge agreement in the middle of a run."""
    blank: dict[str, Any] = {"name": "", "seed": 0, "device": "", "planned_steps": 0, "seconds": 0.0}
    return RunRecord(
        **blank,
        **curves_of(curves.steps),
        stop="passed",
        evaluation=outcome.evaluation,
        predictions=outcome.frames,
        prediction_keys=outcome.keys,
    )
