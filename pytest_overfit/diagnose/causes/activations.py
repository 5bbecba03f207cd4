"""Units that do nothing: rectified ones that never fire, squashed ones at their bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.causes.no_gradient import NEARLY_NOTHING
from pytest_overfit.diagnose.causes.output_range import out_of_range
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Attention, Op, Rectified, Squashed, with_fact
from pytest_overfit.diagnose.queries import is_given, learning, proof
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

ALL = 0.95  # of the units of a layer: so many that fire for no sample
AT_BOUNDS = 0.6  # of the outputs of a squashing function
ON_ONE_KEY = 0.9  # of the rows of an attention
FAR_BIAS = 5.0  # size of a bias that no default gives
HOT = 30.0  # deviation of attention logits that are hot from the start
SHUT = 1e-6  # largest output of a recurrent layer whose gates are shut


def dead(evidence: Evidence) -> Iterator[Cause]:
    """Rectified units that fire for no sample."""
    if evidence.learned or evidence.record.non_finite is not None:
        return
    norms = {p.name: p.max_grad for p in learning(evidence) if p.trainable}
    largest = max((norm for norm in norms.values() if norm), default=0.0)
    silent = [name for name, norm in norms.items() if norm is not None and norm <= NEARLY_NOTHING * largest]
    for ops, when in ((evidence.noted, "at the start"), (evidence.probed.ops, "at the end")):
        rectified = (pair for pair in with_fact(ops, Rectified) if pair[0].region != LOSS and pair[1].units > 0)
        worst = max(rectified, key=lambda pair: pair[1].dead, default=None)
        if worst is None or worst[1].dead < ALL or (worst[1].units == 1 and when == "at the end"):
            continue
        op, relu = worst
        low = [m.name for m in evidence.updates if m.name.endswith("bias") and m.size > FAR_BIAS]
        proven = evidence.proof("fresh weights")
        exploded = when == "at the end" and max(map(abs, evidence.objective), default=0.0) > 10 * abs(
            evidence.objective[0] if evidence.objective else 1
        )
        yield Cause(
            "dead-units",
            op.where,
            f"{relu.dead:.0%} of {relu.units} units fire for no sample {when}"
            + (f"; no gradient reaches {shorten(silent)}" if silent else "")
            + proof(proven, "with fresh weights"),
            f"start {shorten(low)} at 0" if low else "look at bias and weights before it, or use LeakyReLU or GELU",
            "proven" if proven else "shown" if when == "at the start" else "observed",
            {"dead": relu.dead, "units": float(relu.units)},
            weight=0.94 if not exploded else 0.3,
        )
        return


def saturated(evidence: Evidence) -> Iterator[Cause]:
    """Squashing functions at their bounds, where they have no slope."""
    for op in evidence.noted:
        fact = op.fact
        if isinstance(fact, Squashed) and _squashed(op, fact) and not evidence.learned:
            yield _at_bounds(evidence, op, fact)
            return
        if isinstance(fact, Attention) and fact.bound > ON_ONE_KEY and fact.deviation > HOT:
            ends = (end.bound for at, end in with_fact(evidence.probed.ops, Attention) if at.region == op.region)
            yield _on_one_key(op, fact.bound, fact.deviation, certain=max(ends, default=0.0) > ON_ONE_KEY)
            return
        if isinstance(fact, Squashed) and _is_peaked(op, fact):
            yield _on_one_key(op, fact.bound, fact.high or 0.0, certain=False)
            return
    if not evidence.learned and evidence.steps:
        yield from _shut_gates(evidence)
        yield from _driven_to_its_bounds(evidence)


def _driven_to_its_bounds(evidence: Evidence) -> Iterator[Cause]:
    """Sigmoids or tanhs that training has pushed to their ends: what is wanted lies beyond them."""
    if evidence.probed.floor is not None and evidence.probed.floor.unbounded:
        return  # a loss that falls without end pushes whatever holds it up: that is what a bound is there for
    if any(out_of_range(evidence)):
        return  # that is told, and it comes of it
    pairs = with_fact(evidence.probed.ops, Squashed)
    found = [(op, fact) for op, fact in pairs if op.region != LOSS and _squashed(op, fact)]
    if found:
        op, fact = max(found, key=lambda pair: pair[1].bound)
        places = shorten(dict.fromkeys(each.where for each, _ in found))
        yield Cause(
            "saturation",
            places,
            f"{fact.bound:.0%} of {op.name}'s outputs are at its bounds at the end (inputs {number(fact.low or 0)} "
            f"to {number(fact.high or 0)}): no gradient gets through there",
            f"remove the {op.name} in {places}, or scale what it gives to what is wanted",
            "observed",
            {"bound": fact.bound},
            weight=0.8,
        )


def _squashed(op: Op, fact: Squashed) -> bool:
    many = op.name in ("tanh", "sigmoid") and math.prod(op.shapes[-1] or (1,)) >= 4
    return many and fact.bound > AT_BOUNDS


def _at_bounds(evidence: Evidence, op: Op, fact: Squashed) -> Cause:
    far = any(is_given(evidence, t) and max(abs(t.low), abs(t.high)) > 50 for t in evidence.probed.tensors)
    return Cause(
        "saturation",
        op.where,
        f"{fact.bound:.0%} of {op.name}'s outputs are at its bounds from the start (inputs "
        f"{number(fact.low or 0)} to {number(fact.high or 0)})",
        "scale its input down, or initialise the weights before it smaller",
        evidence={"bound": fact.bound},
        weight=0.6 if far else 0.93,
    )


def _is_peaked(op: Op, fact: Squashed) -> bool:
    """A softmax over several keys, by hand, of logits that lie hundreds apart."""
    by_hand = op.name == "softmax" and op.region != LOSS and (fact.length or 0) > 3
    apart = (fact.high or 0) - (fact.low or 0) > 200
    return by_hand and apart and fact.bound > ON_ONE_KEY


def _on_one_key(op: Op, bound: float, deviation: float, *, certain: bool) -> Cause:
    return Cause(
        "saturation",
        op.where,
        f"{bound:.0%} of the attention rows put everything on one key from the start (logits of deviation "
        f"{number(deviation)})",
        "scale the logits by 1 / sqrt(width), or initialise queries and keys smaller",
        evidence={"bound": bound},
        certain=certain,
        weight=0.9,
    )


def _shut_gates(evidence: Evidence) -> Iterator[Cause]:
    gates = [
        m for m in evidence.steps[0].modules if m.kind in ("LSTM", "GRU", "RNN") and max(abs(m.low), abs(m.high)) < SHUT
    ]
    biases = [m for m in evidence.updates if "bias" in m.name and m.size > FAR_BIAS]
    if gates and biases:
        yield Cause(
            "saturation",
            f"module {gates[0].name}: {shorten(m.name for m in biases)}",
            f"the output of {gates[0].name} is at most {number(max(abs(gates[0].low), abs(gates[0].high)))}: its "
            f"gates start shut (biases of {number(biases[0].size)})",
            "start the biases of the gates at 0, the forget gate's at 1",
            evidence={"output": gates[0].high},
            weight=0.96,
        )


def shut(evidence: Evidence) -> Iterator[Cause]:
    """Columns of an output behind a rectifier that is closed for every sample: no gradient opens it again."""
    rectifiers = [
        (op, fact) for op, fact in with_fact(evidence.probed.ops, Rectified) if op.region != LOSS and fact.dead
    ]
    if evidence.learned or evidence.record.non_finite is not None:
        return
    for output in evidence.probed.outputs:
        made = [
            op
            for op, fact in rectifiers
            if fact.units <= output.shape[-1] and 1 <= fact.dead * fact.units <= len(output.shut)
        ]
        if not made:
            continue
        several = len(output.shut) > 1
        yield Cause(
            "dead-units",
            made[-1].where,
            f"{'columns' if several else 'column'} {', '.join(map(str, output.shut))} of {output.name} "
            f"{'are' if several else 'is'} 0 for every sample at the end, and the loss wants more: behind a relu that "
            "is closed no gradient changes that",
            "initialise the bias before it so that it starts above zero, or use softplus or exp",
            evidence={"shut": float(len(output.shut)), "columns": float(output.shape[-1])},
            weight=0.93,
        )
        return


FAMILY = Family(
    group="architecture",
    order=140,
    rules=(dead, shut, saturated),
    docs="""
### dead-units

Units never fire.

```python
model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))
nn.init.constant_(model[0].bias, -100.0)  # fixed: nn.init.constant_(model[0].bias, 0.0)
result = run_overfit(model, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: the loss falls to what biases alone can do.
- **Evidence**: proven: the share of rectified units that are 0 for every sample, and a run that passes with fresh
  weights, or single columns of an output that are 0 for every sample, though the loss wants more.
- **Fix**: look at bias and weights before the activation, use LeakyReLU or GELU.

### saturation

Activations are at their bounds, where they have no slope.

```python
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.head = nn.Linear(8, 64), nn.Linear(64, 3)

    def forward(self, x):
        metres = self.head(self.trunk(x).tanh())
        return torch.tanh(1000 * metres)  # fixed: return torch.tanh(metres)


result = run_overfit(Net, (features, 0.9 * values.tanh()), F.mse_loss, optimizer=adam, max_steps=400)
```

- **Symptom**: the loss hardly moves from the start.
- **Evidence**: shown: the share of outputs at the bounds in the first forward pass.
- **Fix**: scale the input of the activation down, or initialise the weights before it smaller.
""",
)
