"""The size of the loss: sums in place of means, and what is differentiated in place of what is reported."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import Comparison, Scaled
from pytest_overfit.diagnose.queries import line_of
from pytest_overfit.judge.finding import number

SMALL = 0.1  # of the mean of the elements
CLOSE = 0.2  # of the factor of a scaler: a slope that is measured
COUNTED = 1e-3  # of a whole number: sums of losses
DISTRIBUTION = 1e-3  # of 1: probabilities that add up to it
UNDERFLOW = 2.0**7  # times the loss: so much is no weight of a loss, but a scale against underflow
LITTLE, MUCH = 1e-2, 30.0  # times the slope: a factor in between is one of a learning rate


def reduction(evidence: Evidence) -> Iterator[Cause]:
    """The size of the loss, and not its shape, is what the optimizer cannot take, or what meets the limit."""
    sgd = any(g.kind == "SGD" for g in evidence.groups)
    unlikely = "supervised" not in evidence.missed and (evidence.learned or not sgd)
    rate = next((a.trial for a in evidence.attempts if a.passed and a.trial.kind == "learning rate"), None)
    factor = rate.factor if rate else None
    summed = next((op for op, compared in evidence.ops(Comparison) if compared.summed), None)
    elements = max((float(math.prod(op.shapes[0])) for op, _ in evidence.ops(Comparison) if op.shapes), default=0.0)
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
    yield from _of_a_mean(evidence)
    for op, scaled in evidence.ops(Scaled):
        whole = evidence.objective and math.isclose(scaled.made, evidence.objective[0], rel_tol=1e-3)
        counts = (scaled.elements, 0 if evidence.own_step else evidence.probed.samples or 0)
        twice = any(count and math.isclose(count * scaled.factor, 1.0, rel_tol=1e-4) for count in counts)
        if whole and scaled.gain is not None and abs(scaled.gain) < SMALL and (twice or not unlikely):
            elements = scaled.gain / scaled.factor
            what = f"a sum over {elements:.0f} elements" if elements > 1 else "a mean"
            yield Cause(
                "loss-scale",
                op.where,
                f"{what} is multiplied by {number(scaled.factor)}: the loss is {number(scaled.gain)} of the mean of "
                "its elements",
                f"divide by {elements:.0f}, the elements of this batch"
                if elements > 1
                else f"leave out the factor of {number(scaled.factor)}: a mean is divided by its elements already",
                evidence={"factor": scaled.factor, "gain": scaled.gain},
                certain=twice and elements <= 1,
                weight=0.9,
            )
            return


def _of_a_mean(evidence: Evidence) -> Iterator[Cause]:
    """A sum misses the limit that the mean of its elements meets."""
    limit, last = evidence.limit_of_objective(), min(evidence.objective, default=math.nan)
    sums = [(op, fact) for op, fact in evidence.ops(Comparison) if fact.summed and len(op.shapes) > 1]
    if evidence.learned or limit is None or not limit > 0 or len(sums) != 1:
        return
    op, compared = sums[0]
    count = compared.supervised or math.prod(op.shapes[1])
    if count > 1 and limit < last <= count * limit:
        yield Cause(
            "loss-scale",
            op.where,
            f"{op.name} sums over {count} elements: the objective has come to {number(last)}, which is "
            f"{number(last / count)} of each, and the limit is {number(limit)}",
            f'use reduction="mean", or set the limit for {count} elements: {number(count * limit)}',
            evidence={"elements": count, "mean": last / count},
            weight=0.97,
        )


def averaged_over_classes(evidence: Evidence) -> Iterator[Cause]:
    """A divergence is divided by the number of classes too, beside terms that are not."""
    others = [op for op, _ in evidence.ops(Comparison) if op.name != "kl_div"]
    for op, fact in evidence.ops(Comparison):
        spread = fact.log_sum_error is not None and fact.log_sum_error < DISTRIBUTION and len(op.shapes[0]) > 1
        if op.name == "kl_div" and fact.averaged and spread and (fact.classes or 0) > 1 and others:
            yield Cause(
                "loss-scale",
                op.where,
                f"kl_div takes its mean over {fact.classes} classes too: it is {fact.classes} times as large, and "
                f"{others[0].name} beside it is of whole samples",
                'use reduction="batchmean", which is the divergence of a sample',
                evidence={"classes": fact.classes or 0},
                certain=True,
                weight=0.93,
            )
            return


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
        "unscale gradients before the step: scaler.step(optimizer)"
        if multiple >= 2 and math.log2(multiple).is_integer()
        else f"leave out the factor of {number(multiple)} on the way to backward()",
        evidence={"ratio": factor},
        weight=0.94,
    )


def of_another_count(evidence: Evidence) -> Iterator[Cause]:
    """The gradients of micro-batches are those of their mean, times or over their number."""
    found = evidence.probed.agreement
    factor = None if found is None or found.clipped or found.scaled != 1 or found.again else found.factor
    if found is None or factor is None or found.backwards < 2 or not found.reported:
        return
    if found.regrouped is None and found.micro_batches != found.backwards:
        return
    count, multiple = found.backwards, found.differentiated / found.reported
    if min(abs(multiple / count - 1), abs(multiple * count - 1)) > COUNTED or abs(factor / multiple - 1) > CLOSE:
        return
    many = factor > 1
    yield Cause(
        "grad-accumulation",
        line_of([event for _, event in evidence.events("backward")]) or "the train step",
        f"what {count} micro-batches differentiate is {number(multiple)} times what the step reports: "
        + ("their losses add up" if many else f"their losses are divided by {count} twice"),
        f"divide the loss of every micro-batch by their number: (loss / {count}).backward()"
        if many
        else f"divide by {count} once: a loss function that divides by it, or the loop",
        evidence={"multiple": multiple, "ratio": factor, "micro_batches": count},
        certain=True,
        weight=0.94,
    )


def left_scaled(evidence: Evidence) -> Iterator[Cause]:
    """What the loss is multiplied by against underflow is still in the gradients that are taken, or divided out twice.

    A scale is that of a GradScaler, or a large power of two between what is differentiated and what is reported.
    """
    found = evidence.probed.agreement
    factor = None if found is None or found.clipped else found.factor
    if found is None or factor is None:
        return
    scale, who = found.scaled, "a GradScaler multiplies"
    if scale == 1 and found.backwards == 1 and found.reported:
        scale, who = found.differentiated / found.reported, "the step multiplies"
        if scale < UNDERFLOW or abs(math.log2(scale) - round(math.log2(scale))) > COUNTED:
            return
    left, twice = abs(factor / scale - 1) < CLOSE, abs(factor * scale - 1) < CLOSE
    if scale == 1 or not (left or twice):
        return
    yield Cause(
        "loss-scale",
        line_of([event for kind in ("scale", "backward") for _, event in evidence.events(kind)]) or "the train step",
        f"{who} the loss by {number(scale)}, and {'nothing divides' if left else 'the step divides'} the gradients by "
        f"it{'' if left else ' twice'}: the one that the optimizer takes is {number(factor)} times the slope of the "
        "reported objective",
        "step by the scaler, which unscales before: scaler.step(optimizer); scaler.update()"
        if left
        else "divide the gradients by it once: scaler.unscale_(optimizer), or a division of your own, and not both",
        evidence={"ratio": factor, "scale": scale},
        certain=True,
        weight=0.95,
    )


def unlike_growth(evidence: Evidence) -> Iterator[Cause]:
    """Of the terms of one objective some are sums over the samples, and others means."""
    growth = evidence.probed.growth
    sums, means = ([name for name, times in growth.items() if times == each] for each in (2, 1))
    if sums and means:
        yield Cause(
            "loss-scale",
            f"term {sums[0]}",
            f"with every sample of a batch twice {', '.join(sums)} doubles, and {', '.join(means)} stays: what weighs "
            f"more depends on the size of the batch, and {sums[0]} of one sample counts for all",
            f"divide {sums[0]} by the number of samples, as {means[0]} is: sum over the axes of one sample, "
            "sum(dim=-1), and take the mean over samples",
            certain=True,
            weight=0.93,
        )


FAMILY = Family(
    group="loss",
    order=120,
    rules=(reduction, averaged_over_classes, scaled_backward, of_another_count, left_scaled, unlike_growth),
    docs="""
### loss-scale

The magnitude of the loss is wrong: a sum for a mean, a division by the wrong count.

```python
def loss(model, batch):
    return F.mse_loss(model(batch[0]), batch[1], reduction="sum")  # fixed: return F.mse_loss(model(batch[0]), batch[1])


result = run_overfit(net, (features, values), loss, optimizer=sgd, max_steps=300)
```

- **Symptom**: SGD diverges with a rate that is usual; or the loss starts below its limit.
- **Evidence**: proven: a sum over so many elements, and a run that passes with a smaller rate. Shown: a sum
  that misses the limit which the mean of its elements meets. Certain: the
  loss is a mean that is divided by the number of its elements, or of samples, once more; or with every sample
  twice one term of an objective doubles and another stays; or what a GradScaler, or a large power of two, has
  multiplied the loss by is still in the gradients that the optimizer takes, or is divided out twice; or a divergence is
  a mean over its classes too (`kl_div` with `reduction="mean"`), beside another term.
- **Fix**: `reduction="mean"`; divide by the elements of this batch.
""",
)
