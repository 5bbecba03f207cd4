"""Losses and terms that reward what they should punish."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.causes.terms import NOTHING
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Comparison, Op, Squashed
from pytest_overfit.diagnose.queries import exchanged, term_weights
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number


def sign(evidence: Evidence) -> Iterator[Cause]:
    """The loss, or a term of it, rewards what it should punish."""
    if evidence.passed or exchanged(evidence):
        return
    cause = _turned(evidence) or _subtracted(evidence)
    if cause is None:
        logits = next(filter(_is_unnormalised, evidence.ops(Comparison)), None)
        if logits is None:
            cause = _without_floor(evidence)
        elif not any(softmax.over_samples for _, softmax in evidence.ops(Squashed)):
            cause = _of_logits(*logits)
    if cause is not None:
        yield cause


def _turned(evidence: Evidence) -> Cause | None:
    """A term that climbs where the objective falls, by their gradients."""
    for term in evidence.probed.terms:
        values = evidence.record.curves.get(term.name, ())
        turned = term.alignment is not None and term.alignment < -0.5 and (term.share or 0) > NOTHING
        if turned and values and values[-1] > values[0] and not term.weights_only:
            return Cause(
                "loss-sign",
                f"term {term.name}",
                f"the objective falls where {term.name} climbs (cosine of the two gradients {term.alignment:.2f}; "
                f"{term.name} went from {number(values[0])} to {number(values[-1])})",
                f"add {term.name} instead of subtracting it",
                evidence={"cosine": term.alignment or 0.0},
                weight=0.95,
            )
    return None


def _subtracted(evidence: Evidence) -> Cause | None:
    """A term with a negative weight that climbs."""
    exact = {term.name: term.weight for term in evidence.probed.terms if term.weight is not None}
    weights = exact or term_weights(evidence)
    name = next((name for name, weight in weights.items() if weight < -1e-6 and _climbs(evidence, name)), None)
    if name is None:
        return None
    return Cause(
        "loss-sign",
        f"term {name}",
        f"{name} has a weight of {number(weights[name])} in the objective, which falls while the term climbs",
        f"add {name} instead of subtracting it",
        evidence={"weight": weights[name]},
        weight=0.93,
    )


def _is_unnormalised(pair: tuple[Op, Comparison]) -> bool:
    op, compared = pair
    if op.name == "kl_div":  # over whichever axes they add up: no logarithm of a probability is above 0
        return compared.low is not None and compared.low >= 0 and (compared.high or 0.0) > 0
    return op.name in ("nll_loss", "ctc_loss") and (compared.log_sum_error or 0) > 0.05


def _of_logits(op: Op, compared: Comparison) -> Cause:
    off = compared.log_sum_error or 0.0
    seen = f"numbers whose exponentials do not add up to 1 (logsumexp off by {number(off)})"
    if op.name == "kl_div":
        seen = f"numbers from {number(compared.low or 0.0)} to {number(compared.high or 0.0)}, which are no logarithms"
    return Cause(
        "loss-sign",
        op.where,
        f"{op.name} gets {seen}: it rewards what it should punish",
        f"use log_softmax before {op.name}, or cross_entropy",
        evidence={"logsumexp": off},
        certain=True,
        weight=0.95,
    )


def _without_floor(evidence: Evidence) -> Cause | None:
    """An objective that fell below zero, and that an output alone brings down without end.

    A confidence that is weighed against an error has no floor either, but only for both of them together.
    """
    curve, floor = evidence.objective, evidence.probed.floor
    if not curve or not (curve[-1] < 0 and curve[-1] < curve[0]):  # written so that NaN is no fall
        return None
    if not (floor.alone if floor is not None else not _an_error_fell(evidence)):
        return None
    how = f": {shorten(floor.alone)} alone brings it down without end" if floor is not None else ""
    return Cause(
        "loss-sign",
        LOSS,
        f"the objective went from {number(curve[0])} to {number(curve[-1])} and has no floor{how}",
        "look for a minus, or a likelihood in place of its negative; where it has no floor by design, declare "
        "unbounded",
        evidence={"last": curve[-1]},
        weight=0.75,
    )


def _an_error_fell(evidence: Evidence) -> bool:
    """Whether a term that is never negative came down by half beside the objective: that one goes the right way.

    Where it is known which outputs the terms read that fall below zero, those of other outputs say nothing of them.
    """
    curves = {name: c for name, c in evidence.record.curves.items() if name != "objective" and len(c) > 1}
    below = {name for name, curve in curves.items() if min(curve) < 0}
    read = {output for term in evidence.probed.terms if term.name in below for output in term.outputs}
    aside = {term.name for term in evidence.probed.terms if read and not read.intersection(term.outputs)}
    errors = (curve for name, curve in curves.items() if name not in below | aside)
    return any(curve[0] > 0 and curve[-1] < 0.5 * curve[0] for curve in errors)


def _climbs(evidence: Evidence, name: str) -> bool:
    curve = evidence.record.curves.get(name, ())
    return len(curve) > 1 and math.isfinite(curve[-1]) and curve[-1] > curve[0]


FAMILY = Family(
    group="loss",
    order=130,
    rules=(sign,),
    docs="""
### loss-sign

The loss, or a term of it, has the wrong sign, or no lower bound.

```python
def loss(model, batch):
    predicted = model(batch[0])
    # fixed: predicted = predicted.log_softmax(dim=1)
    return F.nll_loss(predicted, batch[1])


result = run_overfit(net, (features, classes), loss, optimizer=adam, max_steps=200)
```

- **Symptom**: the objective falls below zero and goes on; or one term climbs while the objective falls.
- **Evidence**: shown, certain: an `nll_loss` or `kl_div` of what is no log-probability. Shown are gradients of term
  and objective that oppose each other, and an objective that one output alone, a free number, brings down without
  end.
- **Fix**: minimise the negative of a likelihood; add the term; declare what has no floor by design: `unbounded=True`.
""",
)
