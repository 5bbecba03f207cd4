"""The size of the loss: sums in place of means, and what is differentiated in place of what is reported."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import LOSS, Evidence
from pytest_overfit.diagnose.rules.seen import REGRESSORS, noted
from pytest_overfit.judge.finding import number


def reduction(evidence: Evidence) -> Iterator[Cause]:
    """The size of the loss, and not its shape, is what the optimizer cannot take."""
    rate = next((a for a in evidence.attempts if a.passed and a.change.startswith("learning rate x")), None)
    summed = next((op for op in noted(evidence) if op.numbers.get("sum")), None)
    curve, limit = evidence.objective, evidence.limit_of_objective()
    elements = max(
        (float(math.prod(op.shapes[0])) for op in noted(evidence) if op.shapes and ("grad" in op.numbers)), default=0.0
    )
    sgd = any(g.kind == "SGD" for g in evidence.groups)
    if summed is not None and not evidence.learned and sgd:
        yield Cause(
            "loss-scale",
            summed.where,
            f"{summed.name} sums over {elements:.0f} elements in place of a mean",
            'use reduction="mean"',
            "proven" if rate else "shown",
            {"elements": elements},
            weight=0.85,
        )
    elif (
        rate is not None
        and rate.value
        and rate.was
        and rate.value < rate.was
        and sgd
        and curve
        and _summed(evidence, elements)
    ):
        yield Cause(
            "loss-scale",
            LOSS,
            f"the objective starts at {number(curve[0])}, about {elements:.0f} times the mean error of its "
            "elements, and learns with a hundredth of the rate",
            "take the mean in place of the sum",
            "proven",
            {"first": curve[0], "elements": elements},
            weight=0.8,
        )
    if curve and limit is not None and 0 < curve[0] < limit and "supervised" in evidence.missed and _moves(evidence):
        mean = _mean_error(evidence)
        if mean and curve[0] < 0.02 * mean:
            yield Cause(
                "loss-scale",
                LOSS,
                f"the objective starts at {number(curve[0])}, below its limit of {number(limit)}: the mean error of "
                f"its elements is {number(mean)}",
                "divide by the number of elements of this batch, not of a data set",
                "shown",
                {"first": curve[0], "mean_error": mean},
                weight=0.9,
            )


def _moves(evidence: Evidence) -> bool:
    return any(p.max_grad for p in evidence.record.parameters)


def _mean_error(evidence: Evidence) -> float | None:
    """A size of the mean squared error of the first step, from the ranges of what was compared."""
    chance = next(
        (
            math.log(op.numbers["classes"])
            for op in noted(evidence)
            if op.name == "cross_entropy" and op.numbers.get("classes", 0) > 1
        ),
        None,
    )
    if chance is not None:
        return chance
    op = next(
        (op for op in noted(evidence) if op.name in ("difference", *REGRESSORS) and "target_high" in op.numbers), None
    )
    if op is None:
        return None
    gap = max(abs(op.numbers["target_high"] - op.numbers["low"]), abs(op.numbers["high"] - op.numbers["target_low"]))
    return (gap / 3) ** 2


def _summed(evidence: Evidence, elements: float) -> bool:
    mean = _mean_error(evidence)
    return bool(mean) and elements >= 8 and evidence.objective[0] > 0.3 * elements * (mean or 0)


def scaled_backward(evidence: Evidence) -> Iterator[Cause]:
    """What is differentiated is a multiple of what is reported, and the optimizer takes it as it is."""
    if evidence.learned or not evidence.own_step or not evidence.steps:
        return
    ratios = [
        s.roots[0] / s.reported
        for s in evidence.steps
        if len(s.roots) == 1 and s.reported and math.isfinite(s.reported)
    ]
    if not ratios or max(ratios) - min(ratios) > 1e-2 * abs(ratios[0]) or 1e-2 < abs(ratios[0]) < 30:
        return
    yield Cause(
        "loss-scale",
        "the train step",
        f"what is differentiated is {number(ratios[0])} times the reported objective: gradients are as many times "
        "too large or small",
        "unscale gradients before the step (scaler.step(optimizer)), or differentiate the loss itself",
        "shown",
        {"ratio": ratios[0]},
        weight=0.94,
    )


RULES = (reduction, scaled_backward)
