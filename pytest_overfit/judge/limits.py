"""The criteria that compare a loss curve with a limit: objective, camera, depth, any named term; and the trend."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.record import CUT_SHORT, RunRecord
from pytest_overfit.settings.criteria import Limit, Monotonic

SMALL_CLIMB = 0.05  # a share of the fall that may be noise
SMALL_FALL = 0.5  # a share of the start: a pass that takes less says so in the first line of a result
FELL = "fell by only"
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
    term = resolve_term(name, record.curves)
    allowed = f"{limit.text()} for {hold_steps} steps in a row"
    if not record.curves:
        return Finding(name, False, "no step was made", allowed, hint=_limit_hint(record, (), limit))
    if term is None:
        hint = f"name a term that exists, or switch the criterion off with overfit.criteria.{name}: false"
        given = f"terms of the loss: {', '.join(record.curves)}"
        return Finding(name, False, "the loss gives no such term", allowed, where=given, hint=hint)
    curve = record.curves[term]
    measured = [limit.measure(curve, end) for end in _last(curve, hold_steps)]
    worst = max(measured, key=lambda value: _badness(value, limit))
    where = f"{term}, step {record.steps} of {record.planned_steps}, {record.device}, seed {record.seed}"
    margin = _margin(worst, limit)
    unit = " of its start" if limit.relative else ""
    if not (len(curve) >= hold_steps and limit.holds(worst)):
        best = _best(curve, limit)
        observed = f"{term} {number(worst)}{unit} (start {number(curve[0])}, best {number(best)})"
        hint = _limit_hint(record, curve, limit)
        return Finding(name, False, _with_stop(record, observed), allowed, where=where, hint=hint, margin=margin)
    declared = unbounded or (limit.below is not None and limit.below < 0)
    if empty := _empty_success(record, name, term, worst, hold_steps=hold_steps, limits=limits, declared=declared):
        observed, condition, hint = empty
        return Finding(name, False, observed, f"{allowed}{condition}", where=where, hint=hint, margin=margin)
    share = fallen(curve, worst, limit)
    small = "" if share is None or share >= SMALL_FALL else f"{FELL} {share:.0%}"
    if small and not limit.stated:
        observed = f"{term} starts at {number(curve[0])} and passes at {number(worst)}: {small}"
        return Finding(name, False, observed, f"{allowed}, or a limit that is stated", where=where, hint=UNSTATED)
    note = " (negative)" if name == "objective" and worst < 0 else ""
    note += "; declared unbounded" if name == "objective" and unbounded else ""
    note += f"; {small}" if small else ""
    steps = held_since(curve, limit)
    return Finding(
        name, True, f"{term} {number(worst)}{unit}{note}", allowed, where=where, steps_to_pass=steps, margin=margin
    )


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
        term = resolve_term(name, record.curves)
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
    start = 1.0 if limit.relative else limit.measure(curve, min(limit.window, len(curve)))
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


def judge_monotonic(
    record: RunRecord, settings: Monotonic, limits: Mapping[str, Limit], *, noisy: bool = False
) -> Finding:
    """Does every limited term fall as a trend while it is above its limit?

    The running median over ``window`` steps must have fallen, and must not end above its best by more than
    ``tolerance`` of it while it is above the limit. A climb on the way that the term has recovered from is told with
    its size: a healthy run under Adam climbs too. ``strict`` asks of every single step that it does not rise.
    """
    allowed = (
        "no rising step above its limit"
        if settings.strict
        else f"medians of {settings.window} steps end at most {settings.tolerance:.0%} above their best"
    )
    curves = [
        (term, record.curves[term], limit)
        for name, limit in limits.items()
        if (term := resolve_term(name, record.curves)) and len(record.curves[term]) >= 2 and limit.below is not None
    ]
    if not curves and record.steps >= 2:
        return Finding("monotonic", True, "no term with an upper limit to follow", allowed)
    if not curves:
        hint = "see ::finite and ::gradients for why the run ended there"
        return Finding("monotonic", False, "fewer than 2 steps to compare", allowed, hint=hint)
    trends = [_trend(term, curve, limit, settings, noisy=noisy) for term, curve, limit in curves]
    missed = [trend for trend in trends if trend[1]]
    if not missed:
        highest = max(climb for climb, _ in trends)
        recovered = ", recovered" if highest > settings.tolerance else ""
        return Finding("monotonic", True, f"{len(curves)} falling, largest climb {highest:.0%}{recovered}", allowed)
    return Finding(
        "monotonic",
        False,
        max(missed, key=lambda trend: trend[0])[1],
        allowed,
        where=f"{record.device}, seed {record.seed}",
        hint="see ::finite for the first NaN or infinity"
        if record.stop == "non_finite"
        else "try a learning rate 3 to 10 times lower, or a warm-up; a changing sample oscillates too"
        + _floor(settings),
    )


def _floor(settings: Monotonic) -> str:
    if settings.strict:
        return ""
    return f". Climbs below {settings.floor:.1%} of the fall are noise: overfit.criteria.monotonic.floor"


def _trend(term: str, curve: Sequence[float], limit: Limit, settings: Monotonic, *, noisy: bool) -> tuple[float, str]:
    """(largest climb, what is wrong with the trend of one term: nothing, where it falls)."""
    broken = next((i for i, value in enumerate(curve) if not math.isfinite(value)), None)
    if broken is not None:
        return math.inf, f"{term} is {number(curve[broken])} at step {broken + 1}"
    below = (limit.below or 0.0) * (max(0.0, curve[0]) if limit.relative else 1.0)
    window = 1 if settings.strict else min(settings.window, max(1, len(curve) // 2))  # a short run has two ends too
    medians = running_median(curve, window)
    climbs = [*climbs_of(medians, below, noisy=noisy, small=0.0 if settings.strict else settings.floor)]
    largest = max(climbs, key=lambda climb: climb.share, default=Climb(0.0, 0, math.inf))
    left = largest if settings.strict else next((c for c in climbs if c.step == len(medians) - 1), None)
    if left is not None and left.share > (0.0 if settings.strict else settings.tolerance):
        at = left.step + window
        share = (medians[left.step] - max(left.best, below)) / max(medians[0] - left.best, 1e-12)
        small = f", {share:.1%} of its fall" if share < SMALL_CLIMB else ""
        high, verb = number(medians[left.step]), "climbs" if settings.strict else "ends"
        told = f"{term} {verb} {left.share:.0%} above its best {number(left.best)}, at {high} in step {at}{small}"
        return left.share, told
    if not any(curve) or (min(medians[-1], curve[-1]) >= below and not medians[-1] < 0.99 * medians[0]):
        return 0.0, f"{term} does not fall: {number(medians[0])} at the start, {number(medians[-1])} at the end"
    return largest.share, ""


def running_median(curve: Sequence[float], window: int) -> list[float]:
    """Medians of every ``window`` consecutive values (of all of them where there are fewer)."""
    size = min(window, len(curve))
    return [statistics.median(curve[i : i + size]) for i in range(len(curve) - size + 1)]


@dataclass(frozen=True)
class Climb:
    """Where a curve stands above its best so far: by which ``share``, at which place (from 0), above which value."""

    share: float
    step: int
    best: float


def climbs_of(medians: Sequence[float], below: float, *, noisy: bool = False, small: float = 0.0) -> Iterator[Climb]:
    """Every place of a curve that lies above its best so far, while the value is at or above ``below``.

    A climb is relative to the best value, or to the limit where that is larger. For a curve that goes negative a ratio
    to a value near zero says nothing: there, and in a ``noisy`` run, it is relative to the fall so far, or to the best
    where that is larger. A climb by less than ``small`` of the fall so far is the noise of every last stretch.
    """
    signed = noisy or any(value < 0 for value in medians)
    best = math.inf
    for index, value in enumerate(medians):
        fall = medians[0] - best
        if value >= below and best < math.inf and value - max(best, below) > small * fall:
            scale = max(abs(best), fall) if signed else max(best, below)
            yield Climb((value - max(best, below)) / max(scale, 1e-12), index, best)
        best = min(best, value)


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


def _still_falling(curve: Sequence[float]) -> bool:
    """Whether the last twentieth of a run lies clearly below the one before it."""
    part = max(1, len(curve) // 20)
    if len(curve) < 4 or not all(map(math.isfinite, curve[-2 * part :])):
        return False
    last, before = statistics.fmean(curve[-part:]), statistics.fmean(curve[-2 * part : -part])
    return before > 0 and last < 0.97 * before


def _best(curve: Sequence[float], limit: Limit) -> float:
    values = [value for value in curve if not math.isnan(value)]
    return (max if limit.below is None else min)(values, default=math.nan)


def _with_stop(record: RunRecord, observed: str) -> str:
    reasons = {
        "max_seconds": f"cut short by max_seconds after {record.seconds:.1f} s",
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
    if not curve or curve[-1] >= 0.98 * curve[0]:
        return "it did not fall: look at the learning rate, frozen modules and ::gradients"
    if _still_falling(curve):
        return "it was still falling: give it more steps, or a higher learning rate"
    if limit.measure(curve, len(curve)) < 3 * limit.below:
        return "close: give it more steps, or let the learning rate decay to 0"
    return "it fell and stopped: look at the learning rate, loss weights, frozen modules and the data of this sample"
