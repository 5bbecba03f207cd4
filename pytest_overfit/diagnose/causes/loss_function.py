"""The loss as a whole: its shape, its activations, its clamps, its floor."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import SAME_FLOOR, Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Broadcast, Clamped, ClassColumns, Comparison, Squashed, with_fact
from pytest_overfit.diagnose.queries import REGRESSORS
from pytest_overfit.judge.finding import number

TWICE = {("sigmoid", "Sigmoid"), ("softmax", "Softmax")}  # and by which operation its input was made
ONE = 0.1  # of the spread of the ids: columns that say the same


def activated_twice(evidence: Evidence) -> Iterator[Cause]:
    """Probabilities where a loss wants logits."""
    for op, compared in evidence.ops(Comparison):
        low, high = compared.predictions or (-1.0, 2.0)
        if (
            compared.exchanged
            or not (low >= 0 and high <= 1)
            or op.name not in ("cross_entropy", "binary_cross_entropy_with_logits")
        ):
            continue
        if op.name == "cross_entropy" and _adds_up(compared):
            name = "a softmax"
        elif op.final == "Sigmoid":
            name = "a sigmoid"
        else:
            continue
        fix = f"pass logits to {op.name}"
        yield Cause(
            "double-activation",
            op.where,
            f"{op.name} gets the output of {name} ({number(low)} to {number(high)}), and applies one itself",
            f"{fix}: remove {name}",
            evidence={"low": low, "high": high},
            certain=True,
            weight=0.97,
        )
        return


def squashed_twice(evidence: Evidence) -> Iterator[Cause]:
    """A sigmoid of a sigmoid gives 0.5 to 0.73, and a softmax of a softmax nothing near 1; neither what is beyond 1."""
    targets = [fact.targets for _, fact in evidence.ops(Comparison) if fact.classes is None and fact.targets]
    if any(low < 0 or high > 1 for low, high in targets):
        return
    for op, squashed in evidence.ops(Squashed):
        if (op.name, op.final) not in TWICE or squashed.low is None or squashed.high is None:
            continue
        yield Cause(
            "double-activation",
            op.where,
            f"{op.name} gets the output of a {op.name} ({number(squashed.low)} to {number(squashed.high)})",
            f"remove one {op.name}",
            evidence={"low": squashed.low, "high": squashed.high},
            certain=True,
            weight=0.97,
        )
        return


def _adds_up(compared: Comparison) -> bool:
    """Whether predictions are probabilities of several classes."""
    return compared.sum_error is not None and compared.sum_error < 1e-3 and (compared.classes or 0) > 1


def broadcasts(evidence: Evidence) -> Iterator[Cause]:
    """A prediction and a target of different shapes meet as a table of all against all."""
    asked = {op.where: fact.unpaired for op, fact in with_fact(evidence.probed.ops, Broadcast)}
    for op in evidence.noted:
        fact = op.fact
        if asked.get(op.where) is False or (evidence.passed and not asked.get(op.where)):
            continue  # a table that is meant: an axis of times, of bins, of members
        if (
            op.name in REGRESSORS
            and len(op.shapes) >= 2
            and op.shapes[0] != op.shapes[1]
            and op.shapes[0]
            and op.shapes[1]
        ):
            sure = True
        elif isinstance(fact, Broadcast) and fact.same_count and fact.gradients:
            sure = fact.ranks_differ
            if op.region != LOSS and not (sure and fact.of_samples and fact.gradients == 1):
                continue
            if not sure and (evidence.passed or not _has_floor(evidence)):
                continue
        else:
            continue
        (a, b), by = op.shapes[:2], fact.by if isinstance(fact, Broadcast) else op.name
        yield Cause(
            "broadcast",
            op.where,
            f"{tuple(a)} meets {tuple(b)} in {by}, and becomes {_joint(a, b)}",
            "give prediction and target one shape: squeeze or unsqueeze one of them",
            evidence={"elements": float(math.prod(_joint(a, b))), "wanted": float(math.prod(a))},
            certain=sure,
            weight=0.96,
        )
        return


def over_classes(evidence: Evidence) -> Iterator[Cause]:
    """Class ids are the target of every column of an output that has one for each class."""
    for op, fact in with_fact(evidence.probed.ops, ClassColumns):
        (_, target, _), one = op.shapes, fact.apart < ONE
        how = f", which end {fact.apart:.1%} apart" if one else ""
        yield Cause(
            "broadcast",
            op.where,
            f"class ids {tuple(target)} are the target of each of {fact.columns} columns in {op.name}{how}",
            f'use cross_entropy(output, ids) with the ids of {fact.key}; where it is meant, allow=["broadcast"]',
            evidence={"columns": fact.columns, "apart": fact.apart},
            certain=one,
            weight=0.97,
        )
        return


def _joint(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    length = max(len(a), len(b))
    pairs = zip((1,) * (length - len(a)) + tuple(a), (1,) * (length - len(b)) + tuple(b), strict=True)
    return tuple(max(x, y) for x, y in pairs)


def clamped(evidence: Evidence) -> Iterator[Cause]:
    """A clamp stands between the loss and its gradient; it may hold up what no limit is stated for."""
    if evidence.passed:
        return
    for op, clamp in evidence.ops(Clamped):
        if op.region != LOSS or not clamp.share or not (clamp.scalar or clamp.share > 0.1):
            continue
        what = "the loss itself" if clamp.scalar else f"{clamp.share:.0%} of what the loss reads"
        yield Cause(
            "loss-clamped",
            op.where,
            f"a clamp to {number(clamp.clamped_low)}..{number(clamp.clamped_high)} changes {what} "
            f"({number(clamp.low)} to {number(clamp.high)}): no gradient gets through it",
            "clip gradients, not the loss; clamp predictions after the loss",
            evidence={"share": clamp.share},
            weight=0.94,
        )
        return


def floor(evidence: Evidence) -> Iterator[Cause]:
    """No prediction that a search finds brings the loss below its limit, and nothing else says why."""
    if not _has_floor(evidence) or any(next(rule(evidence), None) for rule in (activated_twice, broadcasts, clamped)):
        return
    found, limit = evidence.probed.floor, evidence.limit_of_objective()
    assert found is not None
    assert limit is not None
    if found.reads_weights:  # what is left is the weights' own part: see weight-decay
        return
    smoothing = max((compared.smoothing for _, compared in evidence.ops(Comparison)), default=0.0)
    reached = found.reached
    said = f"the best that a search over free predictions found is {number(reached)} (limit {number(limit)})"
    if smoothing:
        said += f"; label smoothing is {number(smoothing)}"
    way_out = "look whether each prediction meets its own target: shapes, masks, the order of rows; "
    way_out = "train this test without label smoothing, or state" if smoothing else f"{way_out}where it is meant,"
    if not evidence.objective or min(evidence.objective) >= 1.5 * found.reached + 0.02 * evidence.objective[0]:
        return  # a floor holds up what has come near it
    yield Cause(
        "loss-floor",
        LOSS,
        said,
        f"{way_out} objective={number(1.1 * reached)}",
        "shown" if smoothing else "observed",  # a limit that is moved mends no mistake: whatever does comes first
        {"floor": reached, "limit": limit},
        weight=0.86,
    )


def _has_floor(evidence: Evidence) -> bool:
    found, limit = evidence.probed.floor, evidence.limit_of_objective()
    if found is None or limit is None or limit <= 0 or found.steps < 50 or evidence.learned:
        return False
    ends = [found.reached] if found.elsewhere is None else [found.reached, found.elsewhere]
    if max(ends) > (1 + SAME_FLOOR) * min(ends):  # a floor is where every search ends
        return False
    if any(value < (1 - SAME_FLOOR) * found.reached for value in evidence.objective):  # the run has been below it
        return False
    return found.reached > limit and not found.unbounded and found.reached > 0.02 * abs(found.start)


FAMILY = Family(
    group="loss",
    order=90,
    rules=(activated_twice, squashed_twice, broadcasts, over_classes, clamped, floor),
    docs="""
### double-activation

A softmax or sigmoid comes before a loss that applies it itself.

```python
def model():
    return nn.Sequential(*net(), nn.Softmax(dim=1))  # fixed: return net()


result = run_overfit(model, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: the loss stays above a floor; for three classes and softmax that is 0.55.
- **Evidence**: shown, certain: what the loss gets adds up to 1, or comes out of a sigmoid; or a sigmoid or softmax gets
  what another one made.
- **Fix**: pass logits.

### broadcast

Prediction and target have different shapes and meet as a table of all against all.

```python
def loss(model, batch):
    predicted = model(batch[0])[:, :1]  # fixed: predicted = model(batch[0])[:, 0]
    return (predicted - batch[1]).square().mean()


result = run_overfit(net, (features, values[:, 0]), loss, optimizer=adam, max_steps=300)
```

- **Symptom**: the loss falls to the variance of the targets and stays; every prediction is their mean.
- **Evidence**: shown, certain: (12, 1) meets (12,) and becomes (12, 12), in the loss, be the output detached or not, or
  in a model with a weight for every sample; and with those rows in reverse order the objective is the same, so that
  none is held against its own. An axis of times, bins or members, along which they are, is meant. Or class ids (N, 1)
  that are held against each column of an output (N, C): certain where the trained columns all say the same number.
- **Fix**: one shape for both: `squeeze(1)`, `unsqueeze(1)`.

### loss-clamped

A clamp between the predictions and the loss lets no gradient through.

```python
def loss(model, batch):
    error = F.cross_entropy(model(batch[0]), batch[1])
    return error.clamp(max=1.0)  # fixed: return error


result = run_overfit(net, (features, classes), loss, optimizer=adam, max_steps=200)
```

- **Symptom**: the loss is exactly its bound at every step.
- **Evidence**: shown: the share of elements that a clamp in the loss changes.
- **Fix**: clip gradients, not the loss.

### loss-floor

The loss does not get below its limit on this target, from whichever predictions a search starts.

```python
loss = nn.CrossEntropyLoss(label_smoothing=0.1)  # fixed: loss = nn.CrossEntropyLoss()
result = run_overfit(net, (features, classes), loss, optimizer=adam, max_steps=200)
```

- **Symptom**: the loss falls to a plateau and stays there while predictions are right.
- **Evidence**: shown: predictions become free numbers, and the loss is minimised over them, from those of the model
  and from random ones. Where the two end apart, or the run was lower, it is a local minimum and no floor.
- **Fix**: look whether each prediction meets its own target; where it does, state a limit above the floor, or train
  this test without smoothing, entropy terms or noisy targets.
""",
)
