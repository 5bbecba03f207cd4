"""Outputs, or branches, that are multiplied by next to nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Comparison, Scaled, WeightedSum
from pytest_overfit.diagnose.queries import learning, proof
from pytest_overfit.diagnose.step_trace import Module, ParameterUpdate
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number

NOTHING = 1e-4  # of the size that is given
TYPICAL = 0.3  # of the largest of many numbers
LEARNT = 1e-3  # gain of own weights: below it they are small themselves, and may grow


@dataclass(frozen=True)
class Shrunk:
    """A module whose output is next to nothing beside the size that is ``wanted``: that of what it is given."""

    module: Module
    wanted: float

    @property
    def ratio(self) -> float:
        return self.module.size / self.wanted


def shrunk(modules: Sequence[Module], updates: Sequence[ParameterUpdate]) -> Shrunk | None:
    """The first module that makes next to nothing of what it is given, though its own weights are no small ones."""
    reach: dict[str, float] = {}
    for update in updates:
        if len(update.shape) > 1 or not update.name.endswith("bias"):
            owner = update.name.rpartition(".")[0]
            width = math.sqrt(math.prod(update.shape[1:]))
            reach[owner] = min(reach.get(owner, 1.0), update.size * width)
    before = None
    for module in modules:
        same = before is not None and before.shape == module.shape and before.inside
        given = before.size if before is not None and same else TYPICAL * module.fed
        wanted = given * reach.get(module.name, 1.0)
        before = module
        if not module.inside or not module.finite or "softmax" in module.kind.lower():
            continue
        if 0 < module.size < NOTHING * wanted and reach.get(module.name, 1.0) > LEARNT:
            return Shrunk(module, wanted)
    return None


def scaled_away(evidence: Evidence) -> Iterator[Cause]:
    """The output, or a branch, is multiplied by next to nothing."""
    if not evidence.steps:
        return
    cause = None if evidence.learned else _behind_the_model(evidence) or _in_one_module(evidence)
    if cause is not None:
        yield cause
    else:
        yield from _faint_gradients(evidence)


def weighted_otherwise(evidence: Evidence) -> Iterator[Cause]:
    """An attention that sums over one axis by weights that add up to 1 along another."""
    for op, fact in evidence.ops(WeightedSum):
        yield Cause(
            "output-scale",
            op.where,
            f"the softmax of an attention runs over axis {fact.axis}, and {op.name} sums over axis {fact.summed}: the "
            f"weights of a query add up to {number(fact.low)} to {number(fact.high)}, and not to 1",
            f"take the softmax over the keys, the axis that is summed over: dim={fact.summed}, or dim=-1",
            evidence={"low": fact.low, "high": fact.high},
            certain=True,
            weight=0.9,
        )
        return


def _behind_the_model(evidence: Evidence) -> Cause | None:
    """The loss is small for outputs that are thousands of times as large alone: see ``Floor``."""
    found = evidence.probed.floor
    if found is None or found.stretch == 1:
        return None
    proven = next((a for a in evidence.attempts if a.passed and a.trial.value == found.stretch), None)
    factors = [(op, fact) for op, fact in evidence.ops(Scaled) if op.region == LOSS and op.shapes[-1]]
    op, fact = min(factors, key=lambda pair: abs(pair[1].factor), default=(None, None))
    factor = 1 / found.stretch if fact is None else fact.factor
    compared = next((op.where for op, _ in evidence.ops(Comparison)), LOSS)
    return Cause(
        "output-scale",
        compared if op is None else op.where,
        f"the loss gets to {number(found.reached)} with outputs {number(found.stretch)} times as large alone"
        + proof(proven, f"with them times {number(found.stretch)}"),
        f"remove the factor of {number(factor)} between the model's output and the loss",
        "proven" if proven else "shown",
        {"ratio": factor},
        weight=0.95,
    )


def _in_one_module(evidence: Evidence) -> Cause | None:
    """A trial that multiplies what it returns learns, or comes nearer: a norm of large numbers makes small ones too."""
    found, tried = shrunk(evidence.steps[0].modules, evidence.updates), evidence.attempt("rescaled")
    if found is None or tried is None or not evidence.helps(tried):
        return None
    name, size = found.module.name or found.module.kind, found.module.size
    proven = tried if tried.passed else None
    return Cause(
        "output-scale",
        f"module {name} ({found.module.kind})",
        f"{name} makes numbers of a size of {number(found.wanted)} into such of {number(size)} in the first forward "
        f"pass" + proof(proven, f"with its output times {number(tried.trial.value or 1.0)}"),
        f"look for a factor of about {number(10.0 ** round(math.log10(found.ratio)))} in {name}: remove it, or "
        "learn it",
        "proven" if proven else "shown",
        {"ratio": found.ratio},
        weight=0.95 if proven else 0.91,
    )


def _faint_gradients(evidence: Evidence) -> Iterator[Cause]:
    """Weights whose gradient is a millionth of that of the others."""
    norms = {p.name: p.max_grad for p in learning(evidence) if p.trainable and p.max_grad is not None}
    typical = sorted(norm for norm in norms.values() if norm)
    middle = typical[len(typical) // 2] if typical else 0.0
    faint = [name for name, norm in norms.items() if 0 < norm < 1e-6 * middle]
    branches = {name.rpartition(".")[0] for name in faint if ".weight" in name}
    if (
        faint
        and branches
        and evidence.record.stop != "non_finite"
        and not any(m.name in faint and m.size == 0 for m in evidence.updates)
    ):
        yield Cause(
            "output-scale",
            shorten(faint),
            f"the gradient of {len(faint)} tensors never exceeds {number(max(norms[n] for n in faint))}; the median "
            f"of the others is {number(middle)}: what they make is scaled to nothing",
            "look for a tiny factor behind these modules",
            evidence={"largest": max(norms[n] for n in faint), "median": middle},
            certain=max(norms[n] for n in faint) < 1e-7 * middle,
            weight=0.7,
        )


FAMILY = Family(
    group="architecture",
    order=160,
    rules=(scaled_away, weighted_otherwise),
    docs="""
### output-scale

The output, or a branch, is scaled to nothing; or an attention by weights that add up to something else than 1.

```python
class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return 1e-6 * self.net(x)  # fixed: return self.net(x)


result = run_overfit(Scaled, (features, values), F.mse_loss, optimizer=adam, max_steps=400)
```

- **Symptom**: the loss stays at the size of the targets.
- **Evidence**: proven: it passes with the output of that module multiplied, or with that of the model where the loss
  gets below its limit for outputs a hundred times as large alone. Shown, certain: what the weights of an attention, a
  softmax of a product of queries and keys, add up to along the axis that is summed over, where that is another one.
- **Fix**: remove the factor, or learn it; take the softmax over the keys, `dim=-1`.
""",
)
