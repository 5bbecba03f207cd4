"""The criterion of a falling trend: no limited term ends above its best."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.judge.stopped import TOO_FEW
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.criterion import Criterion, bounded

SMALL_CLIMB = 0.05  # a share of the fall that may be noise


@dataclass(frozen=True)
class Monotonic:
    """A climb of the running median over ``window`` steps by more than a ``tolerance`` share is recovered in the end.

    It is where a later median is at or below the earlier best, or the last one below the limit: such a climb is told
    and fails nothing; ``strict`` asks every step not to rise. A climb by less than a ``floor`` share of the fall so far
    is the noise of a last stretch. Another thread count alone gave a healthy run with momentum one of 2.5 %, so for
    any model the floor is wider than for the two-view recipe, and it is judged where it is asked for alone.
    """

    window: int = bounded(21, at_least=1, whole=True)
    tolerance: float = bounded(0.25, at_least=0)
    floor: float = bounded(0.003, at_least=0, at_most=1)
    strict: bool = False


def judge_monotonic(
    record: RunRecord, settings: Monotonic, limits: Mapping[str, Limit], *, noisy: bool = False
) -> Finding:
    """Does every limited term fall as a trend while it is above its limit?

    The running median over ``window`` steps must have fallen, and must have come back from every climb by more than
    ``tolerance`` of its best. One that the term has recovered from is told with its size: a healthy run under Adam
    climbs too. ``strict`` asks of every single step that it does not rise.
    """
    allowed = (
        "no rising step above its limit"
        if settings.strict
        else f"medians of {settings.window} steps come back from climbs of more than {settings.tolerance:.0%}"
    )
    curves = [
        (term, record.curves[term], limit)
        for name, limit in limits.items()
        if (term := record.terms.get(name)) and len(record.curves.get(term, ())) >= 2 and limit.below is not None
    ]
    if not curves and record.steps >= 2:
        return Finding("monotonic", True, "no term with an upper limit to follow", allowed)
    if not curves:
        hint = "see ::finite and ::gradients for why the run ended there"
        return Finding("monotonic", False, TOO_FEW, allowed, hint=hint)
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
        else "look at the learning rate and its warm-up; a changing sample oscillates too" + _floor(settings),
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
    ceiling = limit.ceiling(curve) or 0.0
    below = max(0.0, ceiling) if limit.relative else ceiling
    window = 1 if settings.strict else min(settings.window, max(1, len(curve) // 2))  # a short run has two ends too
    medians = running_median(curve, window)
    climbs = [*climbs_of(medians, below, noisy=noisy, small=0.0 if settings.strict else settings.floor)]
    largest = max(climbs, key=lambda climb: climb.share, default=Climb(0.0, 0, math.inf))
    left = largest if settings.strict else _left(climbs, medians, below, settings.tolerance)
    if left is not None and left.share > 0:
        at, last = left.step + window, left.step == len(medians) - 1
        share = (medians[left.step] - max(left.best, below)) / max(medians[0] - left.best, 1e-12)
        small = f", {share:.1%} of its fall" if share < SMALL_CLIMB else ""
        verb = "ends" if last and not settings.strict else "climbs"
        told = f"{term} {verb} {left.share:.0%} above its best {number(left.best)}, at {number(medians[left.step])}"
        ends = "" if last or settings.strict else f", and does not come back to it: {number(medians[-1])} at the end"
        return left.share, f"{told} in step {at}{small}{ends}"
    if not any(curve) or (min(medians[-1], curve[-1]) >= below and not medians[-1] < 0.99 * medians[0]):
        return 0.0, f"{term} does not fall: {number(medians[0])} at the start, {number(medians[-1])} at the end"
    return largest.share, ""


def _left(climbs: Sequence[Climb], medians: Sequence[float], below: float, tolerance: float) -> Climb | None:
    """What is left of the climbs beyond the tolerance: at the end, or the largest since the best, never made good."""
    last = next((climb for climb in reversed(climbs) if climb.share > tolerance), None)
    if last is None or medians[-1] < below or any(value <= last.best for value in medians[last.step + 1 :]):
        return None
    since = [climb for climb in climbs if climb.best == last.best]
    return last if last.step == len(medians) - 1 else max(since, key=lambda climb: climb.share)


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


MONOTONIC = Criterion(
    "monotonic",
    "the running median of every limited term falls, and comes back from every climb above its limit",
    Monotonic(floor=0.05),
    lambda record, setting, criteria: judge_monotonic(record, setting, criteria.limits(), noisy=criteria.stochastic),
    in_config=Monotonic(),
    on=False,
)
