"""What a trial proves and no rule has named: a run that learns with one thing changed has a cause. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.operation import Drawn, with_fact
from pytest_overfit.diagnose.queries import passes
from pytest_overfit.diagnose.trial import Attempt
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

SAME = 0.01  # of a reported loss: what is differentiated is that very loss
LARGE, SMALL = 5.0, 0.1  # gain of a weight, times that of a default one: 1 / sqrt(inputs)


def unclaimed(evidence: Evidence, causes: Sequence[Cause]) -> Iterator[Cause]:
    """The first trial that learns, where no rule rests on one.

    Args:
        causes: what the rules have found.
    """
    if evidence.learned or any(cause.strength == "proven" for cause in causes):
        return
    for attempt in evidence.attempts:
        if attempt.passed and (cause := _cause_of(evidence, attempt)) is not None:
            sure = any(each.certain for each in causes)  # it learns all the same: the trial gets around that
            yield replace(cause, strength="observed") if sure else cause
            return


def _cause_of(evidence: Evidence, attempt: Attempt) -> Cause | None:
    kind, numbers = attempt.trial.kind, {"steps": float(attempt.passed_at or 0)}
    if kind == "our step" and _same_loss(evidence):
        how = "with zero_grad(), backward() and step() once each, in this order"
        advice = "write the step as optimizer.zero_grad(), loss.backward(), optimizer.step(), once each"
        ordered = all(_in_order([event.kind for event in step.events]) for step in evidence.steps)
        if ordered:
            how = "with zero_grad(), backward() and step() alone; these are called in order: something else is wrong"
            advice = "leave out, one by one, what the step does beside zero_grad(), backward() and step()"
        return Cause(
            "step-order", "the train step", passes(attempt, how), advice, "observed" if ordered else "proven", numbers
        )
    if kind == "same random numbers":
        ops = (*evidence.noted, *evidence.probed.ops)
        op, drawn = next(with_fact(ops, Drawn), (None, None))
        what = f"{drawn.random_by}()" if drawn is not None else "something"
        advice = "draw it once, before the first step"
        if drawn is not None and drawn.random_by == "dropout":
            what, advice = "dropout is the floor of the loss: it", "build the model of this test without dropout"
        seen = f"{what} is drawn anew at every step; " + passes(attempt, "with the same random numbers at every step")
        return Cause("stochastic", op.where if op else "the forward pass or the loss", seen, advice, "proven", numbers)
    return _weights(evidence, attempt) if kind == "fresh weights" else None


def _in_order(kinds: Sequence[str]) -> bool:
    called = [kind for kind in kinds if kind in ("zero_grad", "backward", "step")]
    return called in (["zero_grad", "backward", "step"], ["backward", "step", "zero_grad"])


def _same_loss(evidence: Evidence) -> bool:
    """Whether the step differentiates what it reports: a trial of something else proves nothing of it."""
    first = next((step for step in evidence.steps if step.differentiated), None)
    return first is not None and abs(first.differentiated[0] - first.reported) <= SAME * abs(first.reported)


def _weights(evidence: Evidence, attempt: Attempt) -> Cause | None:
    """The weights that start furthest from the size of default ones."""
    gains = {m.name: m.size * math.sqrt(math.prod(m.shape[1:])) for m in evidence.updates if len(m.shape) > 1}
    large = [name for name, gain in gains.items() if gain > LARGE]
    small = [name for name, gain in gains.items() if gain < SMALL]
    if not large and not small:
        return None
    far = large or small
    gain = (max if large else min)(gains[name] for name in far)
    return Cause(
        "gradient-explosion" if large else "output-scale",
        shorten(far),
        f"{len(far)} weights start at up to {number(gain)} times 1 / sqrt(inputs); "
        + passes(attempt, "with fresh ones"),
        "initialise them with a deviation of about 1 / sqrt(inputs): reset_parameters()",
        "proven",
        {"gain": gain},
    )
