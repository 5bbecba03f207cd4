"""Numbers that are none, numbers that are too coarse, gradients that are too large."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Op, OutOfRange
from pytest_overfit.diagnose.queries import proof
from pytest_overfit.judge.finding import number
from pytest_overfit.run.record import NonFinite

HALF = ("float16", "bfloat16")
EXPLODED = 30.0
AMPLIFIED = 2.0
POSITIVE, ORDINARY = ("log", "log2", "log10", "sqrt", "rsqrt"), 100.0  # what has a value above 0 alone; no divergence
EARLY = 2  # steps: what is not finite by then was built so


def not_finite(evidence: Evidence) -> Iterator[Cause]:
    """Where the first NaN or infinity arose, and what fed it."""
    bad, probed = evidence.record.non_finite, evidence.probed
    if bad is None:
        return
    half = _half(evidence, probed.first_bad)
    if half:
        yield _in_half(bad, half, probed.first_bad)
    if probed.first_bad is not None:
        yield _at_operation(bad, probed.first_bad)
    elif probed.bad_gradient is not None:
        yield _at_gradient(bad, probed.bad_gradient)
    elif probed.huge is not None:
        yield _after_huge(bad, probed.huge)
    else:
        yield _somewhere(bad)


def _in_half(bad: NonFinite, half: str, op: Op | None) -> Cause:
    return Cause(
        "precision",
        op.where if op else bad.what,
        f"{bad.what} is not finite at step {bad.step} in {half}: {_fed(op) if op else 'its range ends at 65504'}",
        "keep the weights in float32 and use autocast, or take bfloat16",
        evidence={"step": bad.step},
        certain=True,
        weight=0.97,
    )


def _at_operation(bad: NonFinite, op: Op) -> Cause:
    kind = "nonfinite-output" if op.region != LOSS else "nonfinite-loss"
    if bad.what.startswith("gradient"):  # the value was left out on the way forward, and not on the way back
        kind = "nonfinite-gradient"
    early = bad.step <= EARLY or _outside(op)
    return Cause(
        kind,
        op.where,
        f"{op.name}() gives the first value that is not finite, at step {bad.step}: {_fed(op)}",
        _guard(op.name),
        "shown" if early else "observed",  # later on it says where a run ended rather than why
        {"step": bad.step, **_measured(op).numbers},
        certain=True,
        weight=0.985 if _outside(op) else 0.96 if early else 0.5,  # another rate only gets there later
    )


def _outside(op: Op) -> bool:
    """Whether it was given numbers of an ordinary size that it has no value for: a logarithm or root of less than 0."""
    fact = _measured(op)
    low, high = fact.fed[0] if fact.fed and fact.sound else (0.0, 0.0)
    return op.name.strip("_") in POSITIVE and low < 0 and max(-low, high) < ORDINARY


def _at_gradient(bad: NonFinite, op: Op) -> Cause:
    return Cause(
        "nonfinite-gradient",
        f"{op.line or LOSS}, the backward pass of {op.name}",
        f"the backward pass of {op.name} gives NaN at step {bad.step}, with finite losses: a root, "
        "logarithm or norm at zero",
        "put a small number under the root (x + eps).sqrt(), or a safe value inside torch.where",
        evidence={"step": bad.step},
        certain=True,
        weight=0.95 if bad.step <= EARLY else 0.8,
    )


def _measured(op: Op | None) -> OutOfRange:
    """What was measured of an operation; nothing, where anomaly detection has named it."""
    return op.fact if op is not None and isinstance(op.fact, OutOfRange) else OutOfRange(())


def _after_huge(bad: NonFinite, op: Op) -> Cause:
    fact = _measured(op)
    low, high = fact.fed[0]
    return Cause(
        "nonfinite-output" if op.region != LOSS else "nonfinite-loss",
        op.where,
        f"{op.name}() gives {number(fact.highest or 0.0)} from {number(low)} to {number(high)}, and {bad.what} is not "
        f"finite at step {bad.step}",
        _guard(op.name),
        "shown" if bad.step <= EARLY else "observed",  # later on it says where a run ended rather than why
        {"step": bad.step, **fact.numbers},
        certain=True,
        weight=0.94 if bad.step <= EARLY else 0.5,
    )


def _somewhere(bad: NonFinite) -> Cause:
    kinds = {"gradient": "nonfinite-gradient", "prediction": "nonfinite-output"}
    return Cause(
        next((kind for word, kind in kinds.items() if word in bad.what), "nonfinite-loss"),
        bad.module or bad.what,
        f"{bad.what} is not finite at step {bad.step}",
        "look at what feeds it in that step",
        "observed",
        {"step": bad.step},
        certain=True,
        weight=0.6,
    )


def _half(evidence: Evidence, op: Op | None) -> str:
    if (dtype := _measured(op).dtype) in HALF:
        return dtype
    kinds = {m.dtype for m in evidence.updates}
    return next((kind for kind in HALF if kind in kinds), "")


def _fed(op: Op) -> str:
    fact = _measured(op)
    ranges = [f"{number(low)} to {number(high)}" for low, high in fact.fed]
    if not fact.sound:
        return "its input is not finite already"
    return f"it was given {' and '.join(ranges)}" if ranges else "its input was finite"


def _guard(name: str) -> str:
    bare = name.strip("_")
    if bare.startswith("log") and "softmax" not in bare:
        return "take the logarithm of something positive: clamp(min=eps), softplus or log_softmax"
    if bare in ("div", "truediv", "mean", "std", "var", "true_divide", "cross_entropy"):
        return "guard the division: clamp(min=1) on a count, + eps on a deviation, and fail on an empty mask"
    if bare in ("exp", "pow", "square", "softplus", "sum", "mul"):
        return "bound what goes in: clamp it, or work with logarithms"
    if "softmax" in bare or "attention" in bare:
        return "leave at least one key unmasked in every row"
    return "guard this operation against the values that it was given"


def coarse(evidence: Evidence) -> Iterator[Cause]:
    """Half precision where the update needs more."""
    proven = evidence.proof("float32")
    half = [m for m in evidence.updates if m.dtype in HALF]
    if not half or evidence.learned or evidence.record.non_finite is not None:
        return
    rounded = [m for m in half if m.gradient and len(m.ratios) > 1 and not any(m.ratios[1:])]
    if proven or rounded:
        yield Cause(
            "precision",
            half[0].name,
            f"{len(half)} parameter tensors are {half[0].dtype}"
            + (f", and updates of {len(rounded)} of them are rounded away" if rounded else "")
            + proof(proven, "in float32"),
            "keep the weights in float32 and use autocast",
            "proven" if proven else "shown",
            {"tensors": len(half)},
            weight=0.96,
        )


def explodes(evidence: Evidence) -> Iterator[Cause]:
    """Activations and gradients are far too large from the start."""
    if evidence.learned or not evidence.steps:
        return
    proven = evidence.proof("fresh weights")
    real = [m for m in evidence.steps[0].modules if m.finite]
    inputs = max((abs(t.mean) + t.deviation for t in evidence.probed.tensors if t.is_input), default=1.0)
    wild = [m for m in real if m.size > EXPLODED * max(1.0, inputs)]
    # A large unit, as of pixels, is no large weight: one of default size makes at most twice what it is given.
    if not any(m.parameters and 0 < AMPLIFIED * m.fed < max(abs(m.low), abs(m.high)) for m in wild):
        return
    gradient = max((m.gradient or 0.0 for m in evidence.updates), default=0.0)
    if not wild or (inputs > 20 and not proven):
        return
    first, last = wild[0], max(wild, key=lambda m: m.size)
    yield Cause(
        "gradient-explosion",
        f"module {first.name}",
        f"activations grow to {number(last.size)} (module {last.name}) in the first forward pass, and the largest "
        f"gradient is {number(gradient)}" + proof(proven, "with fresh weights"),
        "initialise the weights with a deviation of 1 / sqrt(inputs), or normalise between layers",
        "proven" if proven else "shown",
        {"activation": last.size, "gradient": gradient},
        weight=0.9,
    )


FAMILY = Family(
    group="numerics",
    order=30,
    rules=(not_finite, coarse, explodes),
    docs="""
### nonfinite-loss

An operation in the loss gives the first NaN or infinity.

```python
def loss(model, batch):
    error = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    valid = batch[1] > 2  # fixed: valid = batch[1] >= 0
    return (error * valid).sum() / valid.sum()


result = run_overfit(net, (features, classes), loss, optimizer=adam, max_steps=200)
```

- **Symptom**: the loss is NaN; in a loop of your own the model is, too, a step later.
- **Evidence**: shown, certain: the run up to that step again, and there the first operation with a result that is not
  finite, with what it was given.
- **Fix**: guard the division, logarithm or exponential that is named.

### nonfinite-gradient

The loss is finite and a gradient is not.

```python
def loss(model, batch):
    distance = (model(batch[0]) - batch[1]).square().sum(dim=1)
    return (distance * batch[2]).sqrt().mean()  # fixed: return (distance * batch[2] + 1e-6).sqrt().mean()


weights = torch.ones(12)
weights[0] = 0.0
result = run_overfit(net, (features, values, weights), loss, optimizer=adam, objective=0.2, max_steps=300)
```

- **Symptom**: the loss is sound in the first step and NaN in the second.
- **Evidence**: shown, certain: the backward pass is run again under anomaly detection, which names the operation.
- **Fix**: `(x + eps).sqrt()`; inside `torch.where` a safe value on both sides: the branch not taken has a gradient too.

### nonfinite-output

An operation in the model gives the first NaN or infinity.

```python
class Standardised(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        spread = x.std(dim=1, keepdim=True)  # fixed: spread = x.std(dim=1, keepdim=True) + 1e-5
        return self.net((x - x.mean(dim=1, keepdim=True)) / spread)


inputs = features.clone()
inputs[4] = 0.0  # a blank sample
result = run_overfit(Standardised, (inputs, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: the loss is NaN.
- **Evidence**: shown, certain: as for `nonfinite-loss`, with the module.
- **Fix**: guard the operation that is named.

### precision

Low precision loses the update, or overflows.

```python
model = net().half()  # fixed: model = net()
inputs = features.half()  # fixed: inputs = features
result = run_overfit(model, (inputs, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: the loss is NaN after a few steps, or stops falling early.
- **Evidence**: shown, certain: a number beyond the range of its type. Updates that are rounded away are shown, and
  proven where the run passes in float32.
- **Fix**: weights in float32 and autocast around the forward pass; bfloat16 in place of float16; a scaled loss.

### gradient-explosion

Activations and gradients are far too large from the start.

```python
def deep():
    layers = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(nn.Linear(8, 64), *layers, nn.Linear(64, 3))
    for layer in layers[::2]:
        nn.init.normal_(layer.weight)  # fixed: nn.init.kaiming_normal_(layer.weight)
    return model


result = run_overfit(deep, (features, values), F.mse_loss, optimizer=adam, max_steps=100)
```

- **Symptom**: the loss starts orders of magnitude above what the targets explain.
- **Evidence**: proven: sizes of activations in the first forward pass, and a run that passes with fresh weights.
- **Fix**: a deviation of 1 / sqrt(inputs), or normalisation between layers.
""",
)
