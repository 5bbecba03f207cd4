"""The criteria that compare a loss curve with a limit: the objective, and any named term."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.judge.forecast import of_limit
from pytest_overfit.run.record import CUT_SHORT, RunRecord
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.criterion import Criterion

SMALL_FALL = 0.5  # a share of the start: a pass that takes less says so in the first line of a result
FELL = "fell by only"
SETTLE = "let the learning rate decay to 0, or lower it"
OUT_OF_TIME = "cut short by max_seconds"
UNSTATED = (
    "the default limit was not chosen for this loss: state one well below its start, "
    "or {below: 0.01, relative: true} for a hundredth of it"
)


def judge_limit(
    record: RunRecord,
    name: str,
    limit: Limit,
    *,
    hold_steps: int,
    limits: Mapping[str, Limit],
    unbounded: bool = False,
) -> Finding:
    """Is the term within its limit for the last ``hold_steps`` steps of a run that was not cut short?"""
    term = record.terms.get(name)
    allowed = f"{limit.text()} for {hold_steps} steps in a row"
    if not record.curves:
        return Finding(name, False, "no step was made", allowed, hint=_limit_hint(record, (), limit))
    if term is None:
        hint = f"name a term that exists, or switch the criterion off with overfit.criteria.{name}: false"
        given = f"terms of the loss: {', '.join(record.curves)}"
        return Finding(name, False, "the loss gives no such term", allowed, where=given, hint=hint, hint_stands=True)
    curve = record.curves[term]
    measured = [limit.measure(curve, end) for end in _last(curve, hold_steps)]
    worst = max(measured, key=lambda value: _badness(value, limit))
    where = f"{term}, step {record.steps} of {record.planned_steps}, {record.device}, seed {record.seed}"
    margin = _margin(worst, limit)
    unit = " of its start" if limit.relative else ""
    if not (len(curve) >= hold_steps and limit.holds(worst)):
        best = _best(curve, limit)
        observed = f"{term} {number(worst)}{unit} (start {number(curve[0])}, best {number(best)})"
        return Finding(
            name,
            False,
            _with_stop(record, observed),
            allowed,
            where=where,
            hint=_limit_hint(record, curve, limit),
            margin=margin,
            hint_stands=record.stop in CUT_SHORT,
            value=worst,
        )
    declared = unbounded or (limit.below is not None and limit.below < 0)
    if empty := _empty_success(record, name, term, worst, hold_steps=hold_steps, limits=limits, declared=declared):
        observed, condition, hint = empty
        stands = record.stop in CUT_SHORT
        told = f"{allowed}{condition}"
        return Finding(
            name, False, observed, told, where=where, hint=hint, margin=margin, hint_stands=stands, value=worst
        )
    share = fallen(curve, worst, limit)
    small = "" if share is None or share >= SMALL_FALL else f"{FELL} {share:.0%}"
    if small and not limit.stated:
        observed = f"{term} starts at {number(curve[0])} and passes at {number(worst)}: {small}"
        return Finding(
            name, False, observed, f"{allowed}, or a limit that is stated", where=where, hint=UNSTATED, value=worst
        )
    note = " (negative)" if name == "objective" and worst < 0 else ""
    note += "; declared unbounded" if name == "objective" and unbounded else ""
    note += f"; {small}" if small else ""
    steps = held_since(curve, limit)
    observed = f"{term} {number(worst)}{unit}{note}"
    return Finding(name, True, observed, allowed, where=where, steps_to_pass=steps, margin=margin, value=worst)


def _empty_success(
    record: RunRecord,
    name: str,
    term: str,
    worst: float,
    *,
    hold_steps: int,
    limits: Mapping[str, Limit],
    declared: bool,
) -> tuple[str, str, str] | None:
    """(observed, further condition, hint) where a curve below its limit proves nothing all the same."""
    if record.stop in CUT_SHORT:
        observed = _with_stop(record, f"{term} {number(worst)}")
        return observed, ", in a run that was not cut short", _cut_short_hint(record)
    if not any(record.curves[term]):
        hint = "see ::supervised: an all-zero batch, an empty mask or a zero weight"
        return f"{term} is exactly 0 at every step and proves nothing", "", hint
    if name == "objective" and not declared and (missing := unproven(record, limits, hold_steps)):
        observed = f"{term} {number(worst)} is negative and proves nothing alone: {missing}"
        condition = ", and once it is negative a bounded term below a limit of its own"
        hint = "a confidence term or a flipped sign has no floor: look at the terms it is made of"
        return observed, condition, f"{hint}; where that is meant, state a limit and declare unbounded"
    return None


def unproven(record: RunRecord, limits: Mapping[str, Limit], hold_steps: int) -> str | None:
    """Why a negative objective is no success, or None where it never was negative or a bounded term carries it."""
    objective = record.curves.get("objective", ())
    if not any(value < 0 for value in objective):
        return None
    bounded: dict[str, Limit] = {}
    for name, limit in limits.items():
        term = record.terms.get(name)
        if name != "objective" and term is not None and min(record.curves[term]) >= 0:
            bounded[term] = limit
    if not bounded:
        return "no bounded term has a limit of its own"
    for term, limit in bounded.items():
        curve = record.curves[term]
        if all(limit.holds(limit.measure(curve, end)) for end in _last(curve, hold_steps)):
            return None
    return "; ".join(_fate(term, record.curves[term], limit) for term, limit in bounded.items())


def fallen(curve: Sequence[float], end: float, limit: Limit) -> float | None:
    """The share of its start that a term has lost; None where a share says nothing: no upper limit, a start below 0.

    Example:
        >>> fallen([0.02, 0.012], 0.012, Limit(0.015))
        0.4
    """
    start = 1.0 if limit.relative else limit.start(curve)
    if limit.below is None or not start > 0:
        return None
    return 1.0 - end / start


def _last(curve: Sequence[float], count: int) -> range:
    """The ends (from 1) of the last steps of a curve."""
    return range(max(1, len(curve) - count + 1), len(curve) + 1)


def _fate(term: str, curve: Sequence[float], limit: Limit) -> str:
    if limit.above is None and curve[-1] > curve[0]:
        return f"{term} rose from {number(curve[0])} to {number(curve[-1])}"
    return f"{term} is {number(curve[-1])}, limit {limit.text()}"


def held_since(curve: Sequence[float], limit: Limit) -> int:
    """The step (from 1) from which the curve stays within its limit to the end."""
    for end in range(len(curve), 0, -1):
        if not limit.holds(limit.measure(curve, end)):
            return end + 1
    return 1


def _margin(observed: float, limit: Limit) -> float | None:
    """Limit over observed below an upper limit, observed over limit above a lower one; the smaller of the two."""
    if math.isnan(observed):
        return None
    margins = []
    if limit.below is not None and limit.below > 0:
        margins.append(math.inf if observed <= 0 else limit.below / observed)
    if limit.above is not None and limit.above > 0:
        margins.append(max(0.0, observed) / limit.above)
    return min(margins, default=None)


def _badness(value: float, limit: Limit) -> float:
    """How far a value is outside of its limit, or how near to it: the larger the worse, a NaN the worst."""
    if math.isnan(value):
        return math.inf
    over = -math.inf if limit.below is None else value - limit.below
    under = -math.inf if limit.above is None else limit.above - value
    return max(over, under)


def _best(curve: Sequence[float], limit: Limit) -> float:
    values = [value for value in curve if not math.isnan(value)]
    return min(values, key=lambda value: _badness(value, limit), default=math.nan)


def _with_stop(record: RunRecord, observed: str) -> str:
    if record.stop == "max_seconds":  # what the first line of a failure has room for
        steps = f"{record.steps} of {record.planned_steps} steps in {record.seconds:.1f} s"
        return f"{OUT_OF_TIME}: {steps}, {observed}"
    reasons = {
        "interrupted": "interrupted",
        "non_finite": "stopped at the first non-finite value",
        "no_trainable_parameters": "not trained: no parameter is trainable",
        "detached": "not trained: the objective has no gradient",
    }
    reason = reasons.get(record.stop)
    return f"{observed}, {reason} (step {record.steps} of {record.planned_steps})" if reason else observed


def _cut_short_hint(record: RunRecord) -> str:
    if record.stop == "max_seconds":
        return "raise max_seconds; a run that was cut short proves nothing"
    return "run it again to the end; a run that was cut short proves nothing"


def _still_falls(curve: Sequence[float]) -> bool:
    """Whether the best is among the last steps, and better than all before them by some of the way."""
    last = max(1, len(curve) // 10)
    before, end = min(curve[:-last], default=curve[0]), min(curve[-last:])
    return before - end > 0.02 * (curve[0] - end)


def _limit_hint(record: RunRecord, curve: Sequence[float], limit: Limit) -> str:
    if record.stop in CUT_SHORT:
        return _cut_short_hint(record)
    if record.stop == "non_finite":
        return "see ::finite for the first NaN or infinity"
    if record.stop == "no_trainable_parameters":
        return "see ::gradients for what is frozen"
    if record.stop == "detached":
        return "see ::gradients: the objective is not connected to the model"
    if limit.below is None:
        return "it did not get there: look at the loss, the learning rate and the data of this sample"
    if not curve or curve[0] - curve[-1] <= 0.02 * abs(curve[0]):
        return "it did not fall: look at the learning rate, frozen modules and ::gradients"
    if limit.above is not None and limit.measure(curve, len(curve)) <= limit.above:
        return "it fell below its lower limit: look at what the loss leaves out, or let the learning rate decay to 0"
    if (reached := _reached(curve, limit)) is not None:
        return f"it was within its limit at step {reached}, and not to the end: {SETTLE}"
    if (ahead := of_limit(curve, limit)) is not None:
        more = "" if ahead.earliest is None else "give it more steps, or "
        return f"it {ahead.text()}: {more}look at the learning rate"
    if limit.measure(curve, len(curve)) < 3 * limit.below:
        return "close: give it more steps, or let the learning rate decay to 0"
    if _still_falls(curve):
        return "it still falls at its end: give it more steps, or look at the learning rate"
    return "it fell and stopped: look at the learning rate, loss weights, frozen modules and the data of this sample"


def _reached(curve: Sequence[float], limit: Limit) -> int | None:
    """The first step (from 1) within a limit that is left again; None where there is none."""
    held = [limit.holds(limit.measure(curve, end)) for end in range(1, len(curve) + 1)]
    left = any(before and not after for before, after in itertools.pairwise(held))
    return held.index(True) + 1 if left else None


OBJECTIVE = Criterion("objective", "limit of the loss that is minimised", Limit(0.01, stated=False))
