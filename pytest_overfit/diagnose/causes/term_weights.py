"""How terms of a loss weigh beside each other: one that counts for nothing, and one beside which nothing else does."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.queries import term_weights
from pytest_overfit.judge.finding import number

STUCK = 0.5  # of a term's start: what it still has when others are through


def drowned(evidence: Evidence) -> Iterator[Cause]:
    """One term weighs so much that the others do not count."""
    if evidence.learned:
        return
    weights = {name: weight for name, weight in term_weights(evidence).items() if weight > 0}
    if len(weights) < 2:
        return
    first = {name: weight * abs(evidence.record.curves[name][0]) for name, weight in weights.items()}
    heavy = max(weights, key=lambda name: weights[name])
    rest = [name for name in weights if name != heavy]
    parts = {term.name for term in evidence.probed.terms if term.in_objective}
    if evidence.record.curves[heavy] == evidence.record.curves["objective"] and not parts.intersection(rest):
        return  # another name of the objective, beside metrics
    if weights[heavy] < 50 * max(weights[name] for name in rest):
        return
    limit = evidence.limit_of_objective() or 0.0
    stuck = [
        n
        for n in rest
        if evidence.record.curves[n][0] > 0
        and evidence.record.curves[n][-1] > limit
        and evidence.record.curves[n][-1] > STUCK * evidence.record.curves[n][0]
    ]
    if stuck:
        yield Cause(
            "term-weight",
            f"term {heavy}",
            f"{heavy} weighs {number(weights[heavy])}, the others {number(max(weights[n] for n in rest))} at most; "
            f"{stuck[0]} stays at {number(evidence.record.curves[stuck[0]][-1])} of "
            f"{number(evidence.record.curves[stuck[0]][0])}",
            f"lower the weight of {heavy}",
            evidence={"weight": weights[heavy], "first_share": first[heavy] / (sum(first.values()) or 1)},
            weight=0.93,
        )


def outweighed(evidence: Evidence) -> Iterator[Cause]:
    """A term meets its own limit, and weighs so much that the objective cannot meet its own beside it."""
    most = evidence.limit_of_objective()
    if evidence.learned or most is None or most <= 0 or not evidence.objective or evidence.objective[-1] <= most:
        return
    weights = {term.name: term.weight for term in evidence.probed.terms if term.in_objective}
    for criterion, limit in evidence.limits.items():
        name = evidence.record.terms.get(criterion) or "objective"
        weight, last = weights.get(name), evidence.record.curves[name][-1]
        if name == "objective" or weight is None or limit.below is None or limit.relative or not 0 < last < limit.below:
            continue
        if weight * limit.below > most and weight * last > most:
            yield Cause(
                "term-weight",
                f"term {name}",
                f"{name} weighs {number(weight)}: it is at {number(last)}, within its limit of {number(limit.below)}, "
                f"and makes up {number(weight * last)} of the objective, whose limit is {number(most)}",
                f"lower the weight of {name} to {number(most / limit.below)} or less",
                evidence={"weight": weight, "works": most / limit.below},
                weight=0.97,
            )


FAMILY = Family(
    group="loss",
    order=132,
    rules=(drowned, outweighed),
    docs="""
### term-weight

A term is weighted to nothing, or drowns the rest.

```python
def loss(model, batch):
    output = model(batch[0])
    first = (output[:, 0] - batch[1][:, 0]).square().mean()
    rest = (output[:, 1:] - batch[1][:, 1:]).square().mean()
    total = first + 1e-6 * rest  # fixed: total = first + rest
    return {"objective": total, "first": first, "rest": rest}


result = run_overfit(net, (features, values), loss, optimizer=sgd, max_steps=300)
```

- **Symptom**: the objective meets its limit and one term stays where it started.
- **Evidence**: shown, certain: the objective's gradient over the term's own. A term that drowns the others is shown.
- **Fix**: weigh terms so that their gradients are of one size.
""",
)
