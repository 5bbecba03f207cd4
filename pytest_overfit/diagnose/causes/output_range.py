"""Outputs that cannot get to the targets: the range of the last activation, the width of a layer."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence, Output
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Clamped, Comparison, Op, Squashed, with_fact
from pytest_overfit.diagnose.queries import best_of, predictions
from pytest_overfit.diagnose.step_trace import Module
from pytest_overfit.judge.finding import number
from pytest_overfit.judge.forecast import forecast

RANGES = {
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "Hardtanh": (-1.0, 1.0),
    "Relu": (0.0, math.inf),
    "Softplus": (0.0, math.inf),
    "Exp": (0.0, math.inf),
    "Abs": (0.0, math.inf),
}
SHUT = 4.0  # of the input of a tanh or a sigmoid: short of it neither is at its bound
ALL = 0.99  # of an output: what stands at its bound
Interval = tuple[float, float]
COMPARING = ("difference", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


def out_of_range(evidence: Evidence) -> Iterator[Cause]:
    """The last activation cannot reach the targets; nothing holds up an only term that falls below zero."""
    if evidence.learned or (len(evidence.record.curves) == 1 and min(evidence.objective, default=0.0) < 0):
        return
    floor = evidence.probed.floor
    for output in predictions(evidence):
        compared = _compared(evidence, output)
        endless = floor is not None and floor.unbounded  # as under a free confidence: the best predictions are any
        cause = None if endless and compared is None else _beyond_activation(evidence, output, compared)
        if cause is None and not endless:
            cause = _at_bounds(evidence, output, compared)
        if cause is not None:
            yield cause
            return


def _compared(evidence: Evidence, output: Output) -> Interval | None:
    """The range of the targets that what such an output is was compared with."""
    ops = (pair for pair in evidence.ops(Comparison) if pair[0].final == output.final and pair[1].targets is not None)
    return next((compared.targets for op, compared in ops if op.name in COMPARING), None)


def _wanted(evidence: Evidence, output: Output, compared: Interval | None) -> Interval:
    """The range of the targets, or of the best predictions."""
    return best_of(evidence, output.name) if compared is None else compared


def _best(evidence: Evidence, output: Output, compared: Interval | None) -> Interval:
    """The range of the best predictions; of the targets where it is not known."""
    low, high = best_of(evidence, output.name)
    targets = [t for t in evidence.probed.tensors if t.is_target and t.dtype.startswith("float") and t.finite]
    known = compared or ((targets[0].low, targets[0].high) if targets else None)
    return known if high <= low and known is not None else (low, high)


def _beyond_activation(evidence: Evidence, output: Output, compared: Interval | None) -> Cause | None:
    low, high = RANGES.get(output.final, (-math.inf, math.inf))
    wanted = _wanted(evidence, output, compared)
    slack = 0.05 * (wanted[1] - wanted[0]) + 1e-6
    bounded = math.isfinite(low) or math.isfinite(high)
    if not bounded or not (wanted[0] < low - slack or wanted[1] > high + slack):
        return None
    return Cause(
        "output-range",
        f"output {output.name}, made by {output.final.lower()}",
        f"{output.final.lower()} gives {_interval(low, high)}, and the loss wants {number(wanted[0])} to "
        f"{number(wanted[1])}",
        f"remove the {output.final.lower()} at the end, or scale it to the targets",
        evidence={"low": wanted[0], "high": wanted[1]},
        weight=0.95 if compared else 0.8,
    )


def _squasher(evidence: Evidence, output: Output) -> tuple[Op, float] | None:
    """A tanh, sigmoid or clamp in the trained model that makes such an output, and the share that is at its bounds."""
    squashed, clamps = with_fact(evidence.probed.ops, Squashed), with_fact(evidence.probed.ops, Clamped)
    own = [pair for pair in squashed if pair[0].region != LOSS and pair[0].name in ("tanh", "sigmoid")]
    made = [(op, fact.bound) for op, fact in own if output.squashed is None or op.name in output.squashed]
    ends = (output.low, output.high)
    made += [(op, c.share) for op, c in clamps if op.region != LOSS and (c.clamped_low, c.clamped_high) == ends]
    return next((m for m in made if m[1] > 0 and math.prod(m[0].shapes[-1]) == math.prod(output.shape)), None)


def _at_bounds(evidence: Evidence, output: Output, compared: Interval | None) -> Cause | None:
    found, (low, high) = _squasher(evidence, output), _best(evidence, output, compared)
    if found is None or not high > low or not _outside(output, low, high):
        return None
    squashed, bound = found
    if isinstance(squashed.fact, Squashed) and not _stands_there(squashed.fact, output, low, high):
        return None
    return Cause(
        "output-range",
        f"output {output.name}, {squashed.where}",
        f"{output.name} ends at {number(output.low)} to {number(output.high)}, "
        f"{bound:.0%} of it at the bounds of {squashed.name}; "
        f"the loss wants {number(low)} to {number(high)}",
        f"scale the {squashed.name} to the targets, or remove it",
        evidence={"low": low, "high": high},
        weight=0.94 if bound > ALL else 0.85,  # that they are all the same comes of it
    )


def _stands_there(fact: Squashed, output: Output, low: float, high: float) -> bool:
    """Whether the end of the output beyond which the loss wants it is one that its input is pushed to."""
    below, above = _slacks(output, low, high)
    known = fact.low is not None and fact.high is not None
    return not known or (below and (fact.low or 0.0) < -SHUT) or (above and (fact.high or 0.0) > SHUT)


def _interval(low: float, high: float) -> str:
    return (
        f"{number(low)} to {number(high)}"
        if math.isfinite(low) and math.isfinite(high)
        else f"at least {number(low)}"
        if math.isfinite(low)
        else f"at most {number(high)}"
    )


def _outside(output: Output, low: float, high: float) -> bool:
    return any(_slacks(output, low, high))


def _slacks(output: Output, low: float, high: float) -> tuple[bool, bool]:
    slack = 0.1 * (high - low)
    return low < output.low - slack, high > output.high + slack


def too_small(evidence: Evidence) -> Iterator[Cause]:
    """Nothing else is wrong, the loss could get there, and a layer is as narrow as can be."""
    if evidence.learned or not evidence.steps or not evidence.objective:
        return
    floor, limit = evidence.probed.floor, evidence.limit_of_objective()
    reachable = floor is not None and limit is not None and floor.reached < max(limit, 0.1 * min(evidence.objective))
    kinds = {m.name: m.kind for m in evidence.steps[0].modules}
    order = [m.name for m in evidence.steps[0].modules]
    homes = {m.name.rpartition(".")[0]: m.shape[1] for m in evidence.updates if len(m.shape) > 1}
    inner = [
        m
        for place, m in enumerate(evidence.steps[0].modules)
        if m.kind in ("Linear", "Conv1d", "Conv2d")
        and m.shape
        and m.parameters
        and any(homes.get(later) == _width(m) for later in order[place + 1 :])
    ]
    narrow = min(inner, key=_width, default=None)
    outputs = max((math.prod(o.shape[1:]) for o in predictions(evidence) if len(o.shape) > 1), default=1)
    books = [
        m
        for m in evidence.updates
        if m.gradient is not None
        and len(m.shape) == 2
        and m.shape[0] == 1 < m.shape[1]
        and kinds.get(m.name.rpartition(".")[0], "") != "Linear"
    ]
    tiny = narrow is not None and _width(narrow) <= 2 and outputs > _width(narrow)
    falls = forecast(evidence.objective, limit or 0.0) is not None  # then a single token is no bottleneck
    if not reachable or not (tiny or (books and not falls)) or floor is None:
        return
    width = _width(narrow) if tiny and narrow else 1
    where = f"module {narrow.name}" if tiny and narrow else books[0].name
    yield Cause(
        "capacity",
        where,
        f"over free predictions the loss gets to {number(floor.reached)}, the model to "
        f"{number(min(evidence.objective))}: "
        f"{where} passes on {width} number{'s' if width > 1 else ''} per place for {outputs} outputs",
        "widen it",
        evidence={"width": float(width), "outputs": float(outputs)},
        weight=0.78,
    )


def _width(module: Module) -> int:
    return module.shape[1] if module.kind.startswith("Conv") and len(module.shape) > 2 else module.shape[-1]


FAMILY = Family(
    group="architecture",
    order=150,
    rules=(out_of_range, too_small),
    docs="""
### output-range

The last activation cannot reach the targets.

```python
model = nn.Sequential(*net(), nn.Sigmoid())  # fixed: model = net()
result = run_overfit(model, (features, values), F.mse_loss, optimizer=adam, max_steps=400)
```

- **Symptom**: the loss falls to a plateau; predictions sit at a bound.
- **Evidence**: shown: the range of the last activation against what the loss wants.
- **Fix**: remove the activation, or scale it to the targets.

### capacity

The model cannot represent the targets.

```python
model = nn.Sequential(nn.Linear(8, 1), nn.Tanh(), nn.Linear(1, 3))  # fixed: model = net()
result = run_overfit(model, (features, values), F.mse_loss, optimizer=adam, max_steps=400)
```

- **Symptom**: the loss falls to a plateau, and no setting of the optimizer changes that.
- **Evidence**: shown: the loss gets lower over free predictions, and a layer passes on fewer numbers than there are
  outputs.
- **Fix**: widen the layer that is named.
""",
)
