"""The bounded loop: train on one frozen batch until every limit has held, or the budget ends."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.errors.suggest import nearest
from pytest_overfit.run.columns import HYPER, count_held, is_extra, may_hold
from pytest_overfit.run.gradient_watch import GradientWatch, first_non_finite_state, locate_non_finite
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.observer import Observer, wants_numbers
from pytest_overfit.run.optim import set_hyperparameter
from pytest_overfit.run.phases import TRAINING, tell_all
from pytest_overfit.run.record import NonFinite, StopReason
from pytest_overfit.run.subject import Schedule
from pytest_overfit.run.task import Task
from pytest_overfit.run.update import Detached, Row, Update
from pytest_overfit.run.watchdog import Hung
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.keywords import keys

EARLY_STEPS = 3  # steps whose numbers are looked at before the update on every device
DENSE_STEPS = 10  # steps whose gradients are looked at, whatever the sampling period
UPDATES_EARLY = (0, 2, 4, 9, 14, 19)  # steps whose updates are measured, at the cost of a copy of the parameters
UPDATES_EVERY = 25  # and each of so many later ones
STATE_EVERY = 100  # steps between two looks at parameters and optimizer state: a NaN in them stays there
WAIT_SECONDS = 0.5  # that whoever follows a run is told of its steps later

Norms = npt.NDArray[np.float32]


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Plan:
    """How far a run may go.

    ``limits`` are criterion name -> what its term must reach; ``accept`` is asked once all have held for
    ``hold_steps`` steps in a row and may send the run on. Losses are read off the device every ``read_every`` steps,
    the gradient norms are taken in the first ``DENSE_STEPS`` steps and every ``gradient_every`` then (a step between
    shows the last ones).
    ``agree`` gives every rank the first one's decision, ``any_of`` what any of them has found; ``blame`` looks for the
    module behind a prediction that is not finite, which takes a forward pass of one rank alone.
    ``alive`` is told of every step; ``infinite`` are globs over what may be so.
    ``schedules`` are hyper-parameter -> its value at the progress of the run, ``measure`` gives numbers of predictions.
    ``strict_terms`` makes a stated limit on a term that the loss does not give an error instead of a missed criterion.
    ``waits``: steps that were looked at wait to be written down until something depends on them.
    """

    max_steps: int
    max_seconds: float | None
    hold_steps: int
    limits: Mapping[str, Limit]
    val_every: int
    read_every: int
    gradient_every: int = 1
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    strict_terms: bool = False
    accept: Callable[[Curves], bool] = lambda curves: True
    measure: Callable[[Any], Mapping[str, float]] = lambda predictions: {}
    agree: Callable[[Any], Any] = _as_it_is
    any_of: Callable[[Any], Any] = _as_it_is
    alive: Callable[[], None] = lambda: None
    blame: bool = True
    infinite: tuple[str, ...] = ()
    waits: bool = True


@dataclass
class Curves:
    """What the loop writes down, one value per step."""

    steps: list[dict[str, float]] = field(default_factory=list)
    val: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    non_finite: NonFinite | None = None
    stop: StopReason = "max_steps"
    seconds: float = 0.0


def fit(task: Task, update: Update, plan: Plan, *, watch: GradientWatch, observers: Sequence[Observer] = ()) -> Curves:
    """Trains in place and returns the curves; on Ctrl-C the curves so far, with ``stop='interrupted'``."""
    curves = Curves()
    pending, held = _Pending(), 0
    tell_all(observers)(TRAINING, "", plan.max_seconds)
    on_cpu, measured = task.device.type == "cpu", wants_numbers(observers) or (observers and watch.total is not None)
    started = time.perf_counter()
    try:
        with update.running():
            for step in range(plan.max_steps):
                hyper = _apply_schedules(update.optimizers, plan, step / plan.max_steps) if plan.schedules else {}
                # Looking before the update keeps the parameters that made a NaN. On the CPU a look is no sync.
                look = on_cpu or step < EARLY_STEPS
                observe = step < DENSE_STEPS or step % plan.gradient_every == 0
                before = watch.values() if measured and _is_measured(step) else []
                row = update(step, look=look, observe=observe)
                row.moved = watch.moved(before) if before else None
                del before  # as large as the model
                row.hyper = hyper or _hyperparameters(update.optimizers)
                pending.rows.append(row)
                plan.alive()

                due = row.broken or step == 0 or (step + 1) % plan.read_every == 0 or step + 1 == plan.max_steps
                late = plan.max_seconds is not None and time.perf_counter() - started > plan.max_seconds
                if not due or (step and not late and pending.can_wait(curves, plan, held, task.val_batch is not None)):
                    continue
                first = len(curves.steps)
                curves.non_finite = plan.any_of(_drain(pending, task, update, watch, curves, observers, plan.blame))
                if curves.non_finite:
                    curves.stop = "non_finite"
                    break
                if step == 0:
                    _check_terms(curves.steps[0], plan)
                if step == 0 or (step + 1) // plan.val_every != first // plan.val_every or step + 1 == plan.max_steps:
                    _validate(task, step + 1, curves, observers, plan)
                fresh = count_held(curves.steps, plan.limits, len(curves.steps) - first)
                held = fresh + (held if fresh == len(curves.steps) - first else 0)
                passed = plan.limits and held >= plan.hold_steps and plan.accept(curves)
                if stop := plan.agree("passed" if passed else "max_seconds" if late else None):
                    curves.stop = stop
                    break
    except Detached:
        curves.stop = "detached"
        curves.non_finite = plan.any_of(_drain(pending, task, update, watch, curves, observers, blame=False))
    except Hung as hung:
        hung.curves = curves
        _drain(pending, task, update, watch, curves, observers, blame=False)
        raise
    except KeyboardInterrupt:
        curves.stop = "interrupted"
        curves.non_finite = _drain(pending, task, update, watch, curves, observers, blame=False)
    curves.seconds = time.perf_counter() - started
    if curves.non_finite is None:
        found = first_non_finite_state(task.model, update.optimizers, len(curves.steps), watch.infinite)
        curves.non_finite = found if curves.stop == "interrupted" else plan.any_of(found)
        if curves.non_finite is not None and curves.stop in ("passed", "max_steps"):
            curves.stop = "non_finite"
    return curves


def evaluate(task: Task, batch: Any) -> dict[str, float]:
    """The loss terms in evaluation mode as numbers, without a gradient. A host-device sync."""
    return _evaluate(task, batch)[1]


def _evaluate(task: Task, batch: Any) -> tuple[Any, dict[str, float]]:
    with evaluating(task.model):
        predictions, terms = task.forward(batch)
    return predictions, {name: float(value) for name, value in terms.items()}


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


def _check_terms(row: Mapping[str, float], plan: Plan) -> None:
    """A limit on a term that does not exist, or on a ratio that means nothing, is an error at once.

    Raises:
        OverfitError: with the terms that there are, or the start that was seen.
    """
    if not plan.strict_terms:
        return
    terms = [name for name in row if not is_extra(name)]
    for criterion, limit in plan.limits.items():
        if not limit.stated:  # a default that nobody has chosen for this loss
            continue
        name = resolve_term(criterion, terms)  # what has the name of a hyper-parameter is shown as one
        if name is None:
            guess = nearest(criterion, [*terms, *(key for key in keys() if key != criterion)])
            raise OverfitError(
                f"the loss gives no term {criterion!r}",
                where=f"the limit on {criterion}",
                allowed=f"one of the terms that it gives: {', '.join(terms)}",
                hint=f"did you mean {guess!r}?" if guess else None,
            )
        if limit.relative and not row[name] > 0:
            raise OverfitError(
                f"{name} starts at {row[name]:.4g}: a ratio to it means nothing",
                where=f"the limit on {criterion}",
                allowed="a start above zero beside relative",
                hint="state an absolute limit instead",
            )


def _apply_schedules(optimizers: Sequence[torch.optim.Optimizer], plan: Plan, progress: float) -> dict[str, float]:
    """Sets what is scheduled; the hyper-parameters after that."""
    for key, schedule in plan.schedules.items():
        value = schedule(progress)
        for optimizer in optimizers:
            set_hyperparameter(optimizer, key, value)
    return _hyperparameters(optimizers)


def _hyperparameters(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, float]:
    """Learning rate and weight decay of the first group; a tensor learning rate is read."""
    if not optimizers or not optimizers[0].param_groups:
        return {}
    group = optimizers[0].param_groups[0]
    return {key: float(group[key]) for key in HYPER if key in group}


@dataclass
class _Pending:
    """Steps whose numbers are not written down yet. One append per step: Ctrl-C cannot leave half of one."""

    rows: list[Row] = field(default_factory=list)
    norms: dict[str, float] = field(default_factory=dict)
    since: float = 0.0  # when the last ones were

    def can_wait(self, curves: Curves, plan: Plan, held: int, validates: bool) -> bool:
        """Whether the next read is early enough: these are sound, cannot end the run, and nothing falls due.

        The clock has a say only in how soon those who follow are told.
        """
        last, done = self.rows[-1], len(curves.steps)
        now = done + len(self.rows)
        if not plan.waits or not last.looked or last.broken or now >= plan.max_steps:
            return False
        periods = (STATE_EVERY, plan.val_every) if validates else (STATE_EVERY,)
        if any(now // period != done // period for period in periods):
            return False
        if time.perf_counter() - self.since > WAIT_SECONDS:
            return False
        if held + len(self.rows) < plan.hold_steps or not plan.limits:
            return True
        return not may_hold(dict(zip(last.terms, last.values, strict=False)), curves.steps, plan.limits)


def _drain(
    pending: _Pending,
    task: Task,
    update: Update,
    watch: GradientWatch,
    curves: Curves,
    observers: Sequence[Observer],
    blame: bool = True,
) -> NonFinite | None:
    """Reads the pending steps in bulk, writes them down, tells the observers; returns the first non-finite tensor."""
    taken, pending.rows, pending.since = pending.rows, [], time.perf_counter()
    if not taken:
        return None
    first = len(curves.steps)
    read, norms = _values(taken), _norms(taken)
    groups = iter(watch.take(np.stack(observed)) if (observed := [n for n in norms if n is not None]) else ())
    for row, values, norm in zip(taken, read, norms, strict=True):
        if norm is not None:
            pending.norms = dict(zip(watch.columns, next(groups).tolist(), strict=True))
        curves.steps.append(dict(zip(row.terms, values, strict=False)) | pending.norms | row.hyper)
    for observer in observers:
        observer.on_steps(first, curves.steps[first:])
    for step, row in enumerate(taken, first + 1):
        if row.moved is not None:
            _tell(observers, step, watch.update_norms(row.moved))
    bad = _first_bad(task, watch, list(zip(taken, read, norms, strict=True)), first, blame)
    if bad is None and (len(curves.steps) // STATE_EVERY != first // STATE_EVERY):
        bad = first_non_finite_state(task.model, update.optimizers, len(curves.steps), watch.infinite)
    return bad


def _values(rows: Sequence[Row]) -> list[list[float]]:
    """The values of every row. What is still on the device is read at once: the only host-device sync of its steps."""
    waiting = [row.values for row in rows if isinstance(row.values, Tensor)]
    if not waiting:
        return [row.values for row in rows if isinstance(row.values, list)]
    if len({tuple(values.shape) for values in waiting}) == 1:
        read = iter(torch.stack(waiting).tolist())
    else:
        read = iter([values.tolist() for values in waiting])
    return [next(read) if isinstance(row.values, Tensor) else row.values for row in rows]


def _norms(rows: Sequence[Row]) -> list[Norms | None]:
    """The gradient norms of every row, read at once; None where none were taken."""
    taken = [row.norms.detach() for row in rows if row.norms is not None]
    read = iter(torch.stack(taken).cpu().numpy() if taken else ())
    return [None if row.norms is None else next(read) for row in rows]


def _first_bad(
    task: Task, watch: GradientWatch, taken: Sequence[tuple[Row, list[float], Norms | None]], first: int, blame: bool
) -> NonFinite | None:
    for step, (row, values, norms) in enumerate(taken, first + 1):
        if row.looked and not row.broken:
            continue
        bad = row.bad
        for name, value in zip(row.outputs, values[len(row.terms) :], strict=False):
            bad = bad or (None if math.isfinite(value) else name)
        if bad is not None:
            return NonFinite(step, f"prediction {bad}", _blame(task, watch) if blame else None)
        for name, value in zip(row.terms, values, strict=False):
            if not math.isfinite(value) and not watch.infinities.excepts(name):
                return NonFinite(step, f"loss term {name}", None)
        if norms is not None and (culprit := watch.first_non_finite(norms)) is not None:
            return NonFinite(step, f"gradient of {culprit.split('.')[0]}", culprit.rpartition(".")[0] or culprit)
    return None


def _blame(task: Task, watch: GradientWatch) -> str | None:
    """The module that made a prediction non-finite; None once the update has spoilt the parameters themselves."""
    if not task.repeatable or first_non_finite_state(task.model, (), 0, watch.infinite) is not None:
        return None
    try:
        with users_code():
            return locate_non_finite(task.model, lambda: task.forward(task.batch))
    except Refused:  # a model may refuse its own NaN
        return None


def _validate(task: Task, step: int, curves: Curves, observers: Sequence[Observer], plan: Plan) -> None:
    if task.val_batch is None:
        return
    predictions, terms = _evaluate(task, task.val_batch)
    curves.val.append((step, terms))
    for observer in observers:
        observer.on_val(step, terms)
    if observers:
        _tell(observers, step, plan.measure(predictions))


def _is_measured(step: int) -> bool:
    return step in UPDATES_EARLY or step % UPDATES_EVERY == UPDATES_EVERY - 1


def _tell(observers: Sequence[Observer], step: int, numbers: Mapping[str, float]) -> None:
    for observer in observers:
        if numbers:
            observer.on_numbers(step, numbers)
