"""The size of the loss: sums in place of means, and what is differentiated in place of what is reported."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Comparison
from pytest_overfit.diagnose.queries import REGRESSORS
from pytest_overfit.judge.finding import number

LITTLE, MUCH = 1e-2, 30.0  # times the slope: a factor in between is one of a learning rate


def reduction(evidence: Evidence) -> Iterator[Cause]:
    """The size of the loss, and not its shape, is what the optimizer cannot take."""
    rate = next((a.trial for a in evidence.attempts if a.passed and a.trial.kind == "learning rate"), None)
    factor = rate.factor if rate else None
    summed = next((op for op, compared in evidence.ops(Comparison) if compared.summed), None)
    curve, limit = evidence.objective, evidence.limit_of_objective()
    elements = max((float(math.prod(op.shapes[0])) for op, _ in evidence.ops(Comparison) if op.shapes), default=0.0)
    sgd = any(g.kind == "SGD" for g in evidence.groups)
    if summed is not None and not evidence.learned and sgd:
        yield Cause(
            "loss-scale",
            summed.where,
            f"{summed.name} sums over {elements:.0f} elements in place of a mean",
            'use reduction="mean"',
            "proven" if factor is not None else "shown",
            {"elements": elements},
            weight=0.85,
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
                evidence={"first": curve[0], "mean_error": mean},
                weight=0.9,
            )


def _moves(evidence: Evidence) -> bool:
    return any(p.max_grad for p in evidence.record.parameters)


def _mean_error(evidence: Evidence) -> float | None:
    """A size of the mean squared error of the first step, from the ranges of what was compared."""
    chance = next(
        (
            math.log(compared.classes)
            for op, compared in evidence.ops(Comparison)
            if op.name == "cross_entropy" and compared.classes is not None and compared.classes > 1
        ),
        None,
    )
    if chance is not None:
        return chance
    for op, compared in evidence.ops(Comparison):
        wanted, given = compared.targets, compared.predictions
        if op.name in ("difference", *REGRESSORS) and wanted is not None and given is not None:
            return (max(abs(wanted[1] - given[0]), abs(given[1] - wanted[0])) / 3) ** 2
    return None


def scaled_backward(evidence: Evidence) -> Iterator[Cause]:
    """The gradients that the optimizer takes are those of a multiple of what is reported."""
    found = evidence.agreement
    factor = None if found is None or evidence.learned else found.factor
    if found is None or factor is None or LITTLE < factor < MUCH or not found.reported:
        return
    multiple = found.differentiated / found.reported
    if not 0.5 < multiple / factor < 2:
        return
    yield Cause(
        "loss-scale",
        "the train step",
        f"what is differentiated is {number(multiple)} times the reported objective, and the gradient that the "
        f"optimizer takes is {number(factor)} times its slope",
        "unscale gradients before the step (scaler.step(optimizer)), or differentiate the loss itself",
        evidence={"ratio": factor},
        weight=0.94,
    )


FAMILY = Family(
    group="loss",
    order=120,
    rules=(reduction, scaled_backward),
    docs="""
### loss-scale

The magnitude of the loss is wrong: a sum for a mean, a division by the wrong count.

```python
def loss(model, batch):
    return F.mse_loss(model(batch[0]), batch[1], reduction="sum")  # fixed: return F.mse_loss(model(batch[0]), batch[1])


result = run_overfit(net, (features, values), loss, optimizer=sgd, max_steps=300)
```

- **Symptom**: SGD diverges with a rate that is usual; or the loss starts below its limit.
- **Evidence**: proven: a sum over so many elements, and a run that passes with a smaller rate.
- **Fix**: `reduction="mean"`; divide by the elements of this batch.
""",
)
