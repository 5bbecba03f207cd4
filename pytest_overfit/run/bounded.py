"""A bounded run of any task, from live parts to a record of plain numbers."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pytest_overfit.data.batch import fingerprint
from pytest_overfit.run.device import describe_device, peak_mib
from pytest_overfit.run.loop import HYPER, Curves
from pytest_overfit.run.optim import Freezing
from pytest_overfit.run.record import BatchRecord, Evaluation, FramePrediction, RunRecord, Supervision
from pytest_overfit.run.task import Task
from pytest_overfit.run.watch import GradientWatch, parameter_records

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
    randomness: tuple[str, ...] = ()
    frozen: Freezing = field(default_factory=Freezing)
    optimizers: Sequence[Optimizer] = ()
    supervision: Supervision | None = None


def read_every(device: torch.device) -> int:
    """Steps between two bulk reads of the losses on a device."""
    return READ_EVERY.get(device.type, READ_EVERY_ACCELERATOR)


def make_record(parts: Parts, curves: Curves, outcome: Outcome, notes: Sequence[str]) -> RunRecord:
    """Everything as plain numbers."""
    task, rows = parts.task, curves.steps
    columns = _columns(rows)
    grad_norms = {n.removeprefix("grad_norm/"): c for n, c in columns.items() if n.startswith("grad_norm/")}
    return RunRecord(
        name=parts.name,
        seed=parts.seed,
        device=describe_device(task.device),
        planned_steps=parts.planned_steps,
        steps=len(rows),
        stop=curves.stop,
        seconds=curves.seconds,
        curves={name: curve for name, curve in columns.items() if not is_extra(name)},
        val_steps=tuple(step for step, _ in curves.val),
        val_curves=_columns([terms for _, terms in curves.val]),
        learning_rate=columns.get("lr", ()),
        weight_decay=columns.get("weight_decay", ()),
        grad_norms=grad_norms,
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
        },
        peak_mib=peak_mib(task.device),
        notes=tuple(notes),
    )


def is_extra(name: str) -> bool:
    """Whether a column of the curves is no loss term."""
    return name in HYPER or name.startswith("grad_norm/")


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """One curve per name. A step that does not give a term shows its last value: some steps train another part."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, Any] = {}
    for name in names:
        last = next((row[name] for row in rows if name in row), math.nan)
        curve = []
        for row in rows:
            last = row.get(name, last)
            curve.append(last)
        columns[name] = tuple(curve)
    return columns
