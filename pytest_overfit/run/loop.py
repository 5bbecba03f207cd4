"""The bounded loop: train on one frozen batch until every limit has held, or the budget ends."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.optim import Freezing, GradientClipper, set_hyperparameter
from pytest_overfit.run.pictures import FramePicture
from pytest_overfit.run.record import NonFinite, StopReason
from pytest_overfit.run.schedule import Schedule
from pytest_overfit.run.task import Task, Terms
from pytest_overfit.run.watch import GradientWatch, first_non_finite_state, locate_non_finite, named_outputs

EARLY_STEPS = 3  # steps whose numbers are looked at before the update on every device


class Observer(Protocol):
    """Somebody who follows a run while it goes: a progress line, a TensorBoard writer."""

    def on_steps(self, first: int, rows: Sequence[Mapping[str, float]]) -> None:
        """Training steps ``first`` (from 0) onwards: loss terms, ``lr``, ``weight_decay``, ``grad_norm/<group>``."""

    def on_val(self, step: int, terms: Mapping[str, float]) -> None:
        """Loss terms in evaluation mode after ``step`` training steps."""

    def on_pictures(self, pictures: Sequence[FramePicture]) -> None:
        """The frames at the end of the run, where ``logging.log_visuals`` asks for them."""


@dataclass(frozen=True)
class Plan:
    """How far a run may go.

    ``limits`` are criterion name -> value the term must stay below; ``accept`` is asked once all have held for
    ``hold_steps`` steps in a row and may send the run on. Losses are read off the device every ``read_every`` steps,
    the gradient norms are taken every ``gradient_every`` steps (a step between shows the last ones).
    """

    max_steps: int
    max_seconds: float | None
    hold_steps: int
    limits: Mapping[str, float]
    val_every: int
    read_every: int
    gradient_every: int = 1
    lr: Schedule | None = None
    weight_decay: Schedule | None = None
    accept: Callable[[Curves], bool] = lambda curves: True


@dataclass
class Curves:
    """What the loop writes down, one value per step."""

    steps: list[dict[str, float]] = field(default_factory=list)
    val: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    non_finite: NonFinite | None = None
    stop: StopReason = "max_steps"
    seconds: float = 0.0


def fit(
    task: Task,
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    *,
    watch: GradientWatch,
    clip: GradientClipper,
    frozen: Freezing,
    observers: Sequence[Observer] = (),
) -> Curves:
    """Trains in place and returns the curves; on Ctrl-C the curves so far, with ``stop='interrupted'``."""
    curves = Curves()
    pending = _Pending()
    on_cpu = task.device.type == "cpu"
    scaler = task.precision.scaler(task.device)
    started = time.perf_counter()
    try:
        for step in range(plan.max_steps):
            hyper = _apply_schedules(optimizer, plan, step / plan.max_steps)
            task.model.train()
            frozen.hold()
            optimizer.zero_grad(set_to_none=True)
            predictions, terms = task.forward(task.batch)
            scaler.scale(terms["objective"]).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimizer)
            if step % plan.gradient_every == 0:
                norms = watch.observe()
            if scaler.is_enabled():  # the scaler skips a step that overflows and lowers its scale: no failure
                norms = norms.nan_to_num(0.0, 0.0, 0.0)
            names, row = _row(terms, predictions, norms, watch.groups)
            pending.steps.append((names, row, hyper))
            # Looking before the update keeps the parameters that made a NaN. On the CPU a look is no sync.
            broken = (on_cpu or step < EARLY_STEPS) and not bool(torch.isfinite(row).all())
            if not broken:
                clip()
                scaler.step(optimizer)
                scaler.update()

            due = broken or step == 0 or (step + 1) % plan.read_every == 0 or step + 1 == plan.max_steps
            if not due:
                continue
            first = len(curves.steps)
            curves.non_finite = _drain(pending, task, optimizer, curves, observers)
            if curves.non_finite:
                curves.stop = "non_finite"
                break
            if step == 0 or (step + 1) // plan.val_every != first // plan.val_every or step + 1 == plan.max_steps:
                _validate(task, step + 1, curves, observers)
            if plan.limits and count_held(curves.steps, plan.limits) >= plan.hold_steps and plan.accept(curves):
                curves.stop = "passed"
                break
            if plan.max_seconds is not None and time.perf_counter() - started > plan.max_seconds:
                curves.stop = "max_seconds"
                break
    except KeyboardInterrupt:
        curves.stop = "interrupted"
        _drain(pending, task, optimizer, curves, observers)
    curves.seconds = time.perf_counter() - started
    return curves


def evaluate(task: Task, batch: Any) -> dict[str, float]:
    """The loss terms in evaluation mode as numbers, without a gradient. A host-device sync."""
    with evaluating(task.model):
        _, terms = task.forward(batch)
    return {name: float(value) for name, value in terms.items()}


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients for a block; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def count_held(rows: Sequence[Mapping[str, float]], limits: Mapping[str, float]) -> int:
    """For how many of the latest steps in a row every limited term has been below its limit."""
    if not rows:
        return 0
    named = {resolve_term(criterion, rows[-1]): below for criterion, below in limits.items()}
    held = 0
    for row in reversed(rows):
        if any(name is None or not row[name] < below for name, below in named.items()):
            break
        held += 1
    return held


def _apply_schedules(optimizer: torch.optim.Optimizer, plan: Plan, progress: float) -> dict[str, float]:
    for key, schedule in (("lr", plan.lr), ("weight_decay", plan.weight_decay)):
        if schedule is not None:
            set_hyperparameter(optimizer, key, schedule(progress))
    group = optimizer.param_groups[0]
    return {key: float(group[key]) for key in ("lr", "weight_decay") if key in group}


def _row(terms: Terms, predictions: object, norms: Tensor, groups: Sequence[str]) -> tuple[list[str], Tensor]:
    """Names and values of one step, on the device: terms, group norms, and 0 per prediction (NaN if not finite)."""
    outputs = named_outputs(predictions)
    names = [*terms, *(f"grad_norm/{group}" for group in groups), *(f"finite/{name}" for name, _ in outputs)]
    losses = [value.detach().float() for value in terms.values()]
    flags = [torch.where(torch.isfinite(value.detach()).all(), 0.0, math.nan) for _, value in outputs]
    return names, torch.cat([torch.stack(losses), norms.detach(), torch.stack(flags) if flags else norms.new_empty(0)])


@dataclass
class _Pending:
    """Steps whose numbers are still on the device. One append per step: Ctrl-C cannot leave half of one."""

    steps: list[tuple[list[str], Tensor, dict[str, float]]] = field(default_factory=list)


def _drain(
    pending: _Pending,
    task: Task,
    optimizer: torch.optim.Optimizer,
    curves: Curves,
    observers: Sequence[Observer],
) -> NonFinite | None:
    """Reads the pending steps in bulk, writes them down, tells the observers; returns the first non-finite tensor."""
    taken, pending.steps = pending.steps, []
    if not taken:
        return None
    first = len(curves.steps)
    values = torch.stack([row for _, row, _ in taken]).tolist()  # the only host-device sync of these steps
    rows = [dict(zip(names, value, strict=True)) for (names, _, _), value in zip(taken, values, strict=True)]
    curves.steps += [{**_numbers(row), **hyper} for row, (_, _, hyper) in zip(rows, taken, strict=True)]
    for observer in observers:
        observer.on_steps(first, curves.steps[first:])
    return _first_bad(task, optimizer, rows, first)


def _numbers(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if not name.startswith("finite/")}


def _first_bad(
    task: Task, optimizer: torch.optim.Optimizer, rows: Sequence[Mapping[str, float]], first: int
) -> NonFinite | None:
    for offset, row in enumerate(rows):
        step = first + offset + 1
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        outputs = [name for name in bad if name.startswith("finite/")]
        losses = [name for name in bad if not name.startswith("finite/")]
        if outputs:
            return NonFinite(step, f"prediction {outputs[0].removeprefix('finite/')}", _blame(task))
        if losses:
            kind = "gradient of" if losses[0].startswith("grad_norm/") else "loss term"
            name = losses[0].removeprefix("grad_norm/")
            return NonFinite(step, f"{kind} {name}", name if kind == "gradient of" else None)
    return first_non_finite_state(task.model, optimizer, first + len(rows))


def _blame(task: Task) -> str | None:
    """The module that made a prediction non-finite; None once the update has spoilt the parameters themselves."""
    if first_non_finite_state(task.model, None, 0) is not None:
        return None
    return locate_non_finite(task.model, lambda: task.forward(task.batch))


def _validate(task: Task, step: int, curves: Curves, observers: Sequence[Observer]) -> None:
    if task.val_batch is None:
        return
    terms = evaluate(task, task.val_batch)
    curves.val.append((step, terms))
    for observer in observers:
        observer.on_val(step, terms)
