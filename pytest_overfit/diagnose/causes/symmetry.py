"""What stays the same: units and branches that start alike, slots, samples that get one output."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Attention, Squashed
from pytest_overfit.diagnose.queries import best_of, predictions, proof
from pytest_overfit.diagnose.step_trace import Module
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

FLAT = 1e-5  # deviation over the samples relative to the size: they are all alike
REACHED = 0.1  # of the loss: a floor over free predictions from which the model is what is missing


def alike(evidence: Evidence) -> Iterator[Cause]:
    """Units, or whole branches, that start and stay identical."""
    proven = evidence.proof("fresh weights")
    rows = [m for m in evidence.updates if m.rows_alike and len(m.shape) > 1 and m.shape[0] > 1]
    hidden = [m for m in rows if (m.rows_alike_after or proven) and (m.size > 0 or not m.still)]
    most = 2 * len(hidden) >= sum(len(m.shape) > 1 for m in evidence.updates)
    copies = [name for name in evidence.alike if _stay(evidence, name)]
    if copies and (evidence.learned or not (most and hidden)):  # where all weights are alike, so are modules
        yield Cause(
            "symmetry",
            copies[0],
            f"all members of {copies[0]} start with the same weights, and have the same at the end",
            "build each of them anew instead of copying one",
            certain=True,
            weight=0.96,
        )
    if evidence.learned:
        return
    if len(hidden) >= 1 and (len(hidden) > 1 or proven):
        yield Cause(
            "symmetry",
            shorten(m.name for m in hidden),
            f"all rows of {len(hidden)} weights start alike and get the same gradient"
            + proof(proven, "with fresh weights"),
            "initialise "
            + ("every layer" if most else ", ".join(dict.fromkeys(m.name.rpartition(".")[0] or m.name for m in hidden)))
            + " at random: reset_parameters()",
            "proven" if proven else "shown",
            {"weights": len(hidden)},
            weight=0.95 if most else 0.92,
        )


def _stay(evidence: Evidence, name: str) -> bool:
    """Whether copies could have parted: those that get the same gradient in the first step do not."""
    groups: dict[str, list[float]] = {}
    for m in evidence.updates:
        if m.name.startswith(f"{name}.") and m.gradient is not None:
            rest = m.name.removeprefix(f"{name}.").partition(".")[2]
            groups.setdefault(rest, []).append(m.gradient)
    several = [values for values in groups.values() if len(values) > 1]
    return bool(several) and all(max(v) - min(v) <= 1e-6 * max(v) for v in several if max(v) > 0)


def slots_alike(evidence: Evidence) -> Iterator[Cause]:
    """All entries of an output along one axis are the same, and the loss wants them to differ."""
    floor = evidence.probed.floor
    if evidence.learned or floor is None or not evidence.objective:
        return
    for output in predictions(evidence):
        axis = output.alike_along
        wanted = best_of(evidence, output.name)
        if output.constant_within:  # and not along this axis alone
            continue
        if axis is not None and wanted[1] - wanted[0] > 1e-3 and floor.reached < REACHED * min(evidence.objective):
            yield Cause(
                "symmetry",
                f"output {output.name}",
                f"all {output.shape[axis]} entries of {output.name} along axis {axis} are the same after training; "
                f"over free predictions the loss gets to {number(floor.reached)}",
                "give each entry something of its own: a query or a position that is learnt or drawn at random",
                evidence={"entries": output.shape[axis], "floor": floor.reached},
                weight=0.86,
            )
            return


def all_alike(evidence: Evidence) -> Iterator[Cause]:
    """Every sample gets the same output, though the inputs differ and so do the targets."""
    if evidence.learned or evidence.record.stop in ("detached", "non_finite"):
        return
    for modules, when in (
        (evidence.steps[0].modules if evidence.steps else (), "from the start"),
        (evidence.probed.modules, "at the end"),
    ):
        roots = [m for m in modules if m.spread is not None]
        if (
            not roots
            or roots[-1].spread is None
            or roots[-1].spread > FLAT
            or (roots[-1].size == 0 and when == "from the start")
        ):
            continue
        first = next(
            (m for m in roots if m.spread is not None and m.spread <= FLAT and (m.input_spread or 0) > FLAT), None
        )
        if first is None:
            continue
        if when == "at the end" and any(m.size == 0 for m in roots):
            continue
        yield Cause(
            "constant-output",
            f"module {first.name} ({first.kind})",
            f"{when} all samples get the same output: {first.name} makes inputs that differ by "
            f"{number(first.input_spread or 0)} of their size into outputs that differ by "
            f"{number(first.spread or 0)}",
            _why_alike(first),
            evidence={"input_spread": first.input_spread or 0.0, "spread": first.spread or 0.0},
            weight=0.85 if when == "from the start" else 0.6,
        )
        return


def _why_alike(module: Module) -> str:
    if "Norm" in module.kind and (not module.shape or module.shape[-1] == 1):
        return "normalise over more than one feature"
    if "softmax" in module.kind.lower():
        return "take softmax over the classes; over one logit it is 1"
    return f"look at what {module.name} does with its input: a mean, a zero, a mask, a dead or saturated unit"


def elements_alike(evidence: Evidence) -> Iterator[Cause]:
    """All elements of a sample's output are the same, and the loss wants them to differ."""
    if evidence.learned or evidence.record.stop in ("detached", "non_finite"):
        return
    for output in predictions(evidence):
        wanted = best_of(evidence, output.name)
        if (
            output.constant_within
            and wanted[1] - wanted[0] > 1e-3
            and (output.spread or 0) >= 0
            and len(output.shape) > 2
        ):
            yield Cause(
                "constant-output",
                f"output {output.name}",
                f"all {math.prod(output.shape[1:])} elements of a sample's {output.name} are the same "
                f"({number(output.low)} to {number(output.high)} over the samples), and the loss wants "
                f"{number(wanted[0])} to {number(wanted[1])}",
                "predict every element from features of its own, not from a pooled vector",
                evidence={"low": wanted[0], "high": wanted[1]},
                weight=0.85,
            )
            return


def flat_attention(evidence: Evidence) -> Iterator[Cause]:
    """Attention that weighs all keys alike after training: queries and keys get no gradient."""
    for op in evidence.probed.ops:
        flat = isinstance(op.fact, Attention) and op.fact.deviation == 0 and op.fact.keys > 2
        level = isinstance(op.fact, Squashed) and op.name == "softmax" and op.region != LOSS and _is_level(op.fact)
        if flat or level:
            yield Cause(
                "zero-gradient",
                op.where,
                "all attention logits are the same after training: every key weighs alike, queries and keys learn "
                "nothing",
                "look at the scale of the logits, 1 / sqrt(width)",
                evidence={"deviation": 0.0},
                certain=True,
                weight=0.9,
            )
            return


def _is_level(softmax: Squashed) -> bool:
    several = (softmax.length or 0) > 2 and (softmax.ranks or 0) > 2
    return several and softmax.low is not None and softmax.low == softmax.high


def one_logit(evidence: Evidence) -> Iterator[Cause]:
    """A softmax over a single number is 1, whatever the number."""
    for op, softmax in evidence.ops(Squashed):
        # One query over one key, or many heads of them, is a sequence that is that short.
        shape = op.shapes[-1] if op.shapes else ()
        short = len(shape) > 3 or shape[-2:-1] == (1,)
        if softmax.length == 1 and (softmax.ranks or 0) > 0 and not short:
            yield Cause(
                "constant-output",
                op.where,
                f"{op.name} runs over an axis of one element (shape {op.shapes[-1]}): its output is the same for "
                "all inputs",
                "use a sigmoid for one logit, or two logits",
                evidence={"length": 1.0},
                # A mixture of one, one expert or one slot: the loss falls by what else it reads.
                certain=not evidence.learned or min(evidence.objective) >= evidence.objective[0],
                weight=0.97,
            )
            return


FAMILY = Family(
    group="architecture",
    order=170,
    rules=(alike, all_alike, elements_alike, slots_alike, flat_attention, one_logit),
    docs="""
### symmetry

Units start, and stay, identical.

```python
model = net()
for parameter in model.parameters():
    nn.init.constant_(parameter, 0.1)  # fixed: nn.init.normal_(parameter, std=0.1)
result = run_overfit(model, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: the loss falls as if a layer had one unit.
- **Evidence**: proven: rows of a weight that are equal before and after, and a run that passes with fresh weights.
- **Fix**: initialise at random; build the members of an ensemble anew in place of copying one.

### constant-output

All samples get the same output though their inputs differ.

```python
model = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 1))
model.append(nn.Softmax(dim=1))  # fixed: model.append(nn.Sigmoid())
result = run_overfit(
    model, (features, (values[:, :1] > 0).float()), F.binary_cross_entropy, optimizer=adam, max_steps=200
)
```

- **Symptom**: the loss does not move, or falls to what one answer for all can reach.
- **Evidence**: shown, certain: a softmax over an axis of one element, and a loss that does not fall. Shown is a module
  that makes inputs that differ into outputs that do not.
- **Fix**: two logits for softmax, or a sigmoid; no normalisation over one feature; no mean over the batch.
""",
)
