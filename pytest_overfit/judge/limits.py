"""The criteria that compare a loss curve with a limit: objective, camera, depth, any named term; and the trend."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from pytest_overfit.config.schema import Monotonic
from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.record import CUT_SHORT, RunRecord


def judge_limit(record: RunRecord, name: str, below: float, *, hold_steps: int, limits: Mapping[str, float]) -> Finding:
    """Is the term below its limit for the last ``hold_steps`` steps of a run that was not cut short?"""
    term = resolve_term(name, record.curves)
    allowed = f"< {number(below)} for {hold_steps} steps in a row"
    if not record.curves:
        return Finding(name, False, "no step was made", allowed, hint=_limit_hint(record, (), below))
    if term is None:
        hint = f"name a term that exists, or switch the criterion off with overfit.criteria.{name}: false"
        given = f"terms of the loss: {', '.join(record.curves)}"
        return Finding(name, False, "the loss gives no such term", allowed, where=given, hint=hint)
    curve = record.curves[term]
    worst = max(curve[-hold_steps:], key=_with_nan_last)
    where = f"{term}, step {record.steps} of {record.planned_steps}, {record.device}, seed {record.seed}"
    margin = _margin(worst, below)
    if not (len(curve) >= hold_steps and worst < below):
        observed = f"{term} {number(worst)} (start {number(curve[0])}, best {number(_least(curve))})"
        hint = _limit_hint(record, curve, below)
        return Finding(name, False, _with_stop(record, observed), allowed, where=where, hint=hint, margin=margin)
    if empty := _empty_success(record, name, term, worst, hold_steps=hold_steps, limits=limits):
        observed, condition, hint = empty
        return Finding(name, False, observed, f"{allowed}{condition}", where=where, hint=hint, margin=margin)
    note = " (negative)" if name == "objective" and worst < 0 else ""
    steps = held_since(curve, below)
    return Finding(
        name, True, f"{term} {number(worst)}{note}", allowed, where=where, steps_to_pass=steps, margin=margin
    )


def _empty_success(
    record: RunRecord, name: str, term: str, worst: float, *, hold_steps: int, limits: Mapping[str, float]
) -> tuple[str, str, str] | None:
    """(observed, further condition, hint) where a curve below its limit proves nothing all the same."""
    if record.stop in CUT_SHORT:
        observed = _with_stop(record, f"{term} {number(worst)}")
        return observed, ", in a run that was not cut short", _cut_short_hint(record)
    if not any(record.curves[term]):
        hint = "see ::supervised: an all-zero batch, an empty mask or a zero weight"
        return f"{term} is exactly 0 at every step and proves nothing", "", hint
    if name == "objective" and (missing := unproven(record, limits, hold_steps)):
        observed = f"{term} {number(worst)} is negative and proves nothing alone: {missing}"
        condition = ", and once it is negative a bounded term below a limit of its own"
        return observed, condition, "a confidence term or a flipped sign has no floor: look at the terms it is made of"
    return None


def unproven(record: RunRecord, limits: Mapping[str, float], hold_steps: int) -> str | None:
    """Why a negative objective is no success, or None where it never was negative or a bounded term carries it."""
    objective = record.curves.get("objective", ())
    if not any(value < 0 for value in objective):
        return None
    bounded = {}
    for name, below in limits.items():
        term = resolve_term(name, record.curves)
        if name != "objective" and term is not None and min(record.curves[term]) >= 0:
            bounded[term] = below
    if not bounded:
        return "no bounded term has a limit of its own (set overfit.criteria.camera, depth or loss_<term>)"
    for term, below in bounded.items():
        if all(value < below for value in record.curves[term][-hold_steps:]):
            return None
    return "; ".join(_fate(term, record.curves[term], below) for term, below in bounded.items())


def _fate(term: str, curve: Sequence[float], below: float) -> str:
    if curve[-1] > curve[0]:
        return f"{term} rose from {number(curve[0])} to {number(curve[-1])}"
    return f"{term} is {number(curve[-1])}, limit {number(below)}"


def judge_monotonic(record: RunRecord, settings: Monotonic, limits: Mapping[str, float]) -> Finding:
    """Does every limited term fall as a trend while it is above its limit?

    The running median over ``window`` steps must never climb above its best so far by more than ``tolerance`` of it
    while it is above the limit, and must have fallen at all. ``strict`` asks the same of every single step.
    """
    window = 1 if settings.strict else settings.window
    tolerance = 0.0 if settings.strict else settings.tolerance
    allowed = (
        "no rising step above its limit"
        if settings.strict
        else f"medians of {window} steps climb at most {tolerance:.0%}"
    )
    worst: tuple[float, str] | None = None
    judged, highest = 0, 0.0
    for name, below in limits.items():
        term = resolve_term(name, record.curves)
        if term is None or len(record.curves[term]) < 2:
            continue
        judged += 1
        broken = next((i for i, value in enumerate(record.curves[term]) if not math.isfinite(value)), None)
        if broken is not None:
            worst = (math.inf, f"{term} is {number(record.curves[term][broken])} at step {broken + 1}")
            continue
        medians = running_median(record.curves[term], window)
        climb, step, best = largest_climb(medians, below)
        highest = max(highest, climb)
        if climb > tolerance:
            high = f"{number(medians[step])} at step {step + window}"
            text = f"{term} climbs {climb:.0%} above its best {number(best)} to {high}"
            worst = max(worst or (climb, text), (climb, text))
        elif not any(record.curves[term]) or (medians[-1] >= below and not medians[-1] < 0.99 * medians[0]):
            text = f"{term} does not fall: {number(medians[0])} at the start, {number(medians[-1])} at the end"
            worst = worst or (0.0, text)
    if judged == 0:
        return Finding(
            "monotonic",
            False,
            "fewer than 2 steps to compare",
            allowed,
            hint="see ::finite and ::gradients for why the run ended there",
        )
    if worst is None:
        return Finding("monotonic", True, f"{judged} falling, largest climb {highest:.0%}", allowed)
    return Finding(
        "monotonic",
        False,
        worst[1],
        allowed,
        where=f"{record.device}, seed {record.seed}",
        hint="see ::finite for the first NaN or infinity"
        if record.stop == "non_finite"
        else "try a learning rate 3 to 10 times lower, or a warm-up; a changing sample oscillates too",
    )


def running_median(curve: Sequence[float], window: int) -> list[float]:
    """Medians of every ``window`` consecutive values (of all of them where there are fewer)."""
    size = min(window, len(curve))
    return [statistics.median(curve[i : i + size]) for i in range(len(curve) - size + 1)]


def largest_climb(medians: Sequence[float], below: float) -> tuple[float, int, float]:
    """(relative climb above the best so far, its index, that best), while the value is at or above ``below``.

    A climb is relative to the best value, or to the limit where that is larger. For a curve that goes negative a ratio
    to a value near zero says nothing: there it is relative to the fall so far, or to the best where that is larger.
    """
    signed = any(value < 0 for value in medians)
    best, found = math.inf, (0.0, 0, math.inf)
    for index, value in enumerate(medians):
        if math.isnan(value):
            return math.inf, index, best
        if value >= below and best < math.inf:
            scale = max(abs(best), medians[0] - best) if signed else max(best, below)
            climb = (value - max(best, below)) / max(scale, 1e-12)
            if climb > found[0]:
                found = (climb, index, best)
        best = min(best, value)
    return found


def held_since(curve: Sequence[float], below: float) -> int:
    """The step (from 1) from which the curve stays below its limit to the end."""
    for index in range(len(curve) - 1, -1, -1):
        if not curve[index] < below:
            return index + 2
    return 1


def _margin(observed: float, below: float) -> float | None:
    if math.isnan(observed) or below <= 0:
        return None
    return math.inf if observed <= 0 else below / observed


def _with_nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _least(curve: Sequence[float]) -> float:
    return min((value for value in curve if not math.isnan(value)), default=math.nan)


def _with_stop(record: RunRecord, observed: str) -> str:
    reasons = {
        "max_seconds": f"cut short by max_seconds after {record.seconds:.1f} s",
        "interrupted": "interrupted",
        "non_finite": "stopped at the first non-finite value",
        "no_trainable_parameters": "not trained: no parameter is trainable",
    }
    reason = reasons.get(record.stop)
    return f"{observed}, {reason} (step {record.steps} of {record.planned_steps})" if reason else observed


def _cut_short_hint(record: RunRecord) -> str:
    if record.stop == "max_seconds":
        return "raise overfit.budget.max_seconds; a run that was cut short proves nothing"
    return "run it again to the end; a run that was cut short proves nothing"


def _limit_hint(record: RunRecord, curve: Sequence[float], below: float) -> str:
    if record.stop in CUT_SHORT:
        return _cut_short_hint(record)
    if record.stop == "non_finite":
        return "see ::finite for the first NaN or infinity"
    if record.stop == "no_trainable_parameters":
        return "see ::gradients for what is frozen"
    if not curve or curve[-1] >= 0.98 * curve[0]:
        return "it did not fall: look at the learning rate, frozen modules and ::gradients"
    if curve[-1] < 3 * below:
        return "close: give it more steps (max_epochs, overfit.steps_per_epoch) or let the learning rate decay to 0"
    return "it fell and stopped: look at the learning rate, loss weights, frozen modules and the data of this pair"
