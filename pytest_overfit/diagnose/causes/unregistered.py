"""Leaves of the graph that are nobody's parameters."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import PlainWeight, with_fact
from pytest_overfit.errors.suggest import shorten


def not_registered(evidence: Evidence) -> Iterator[Cause]:
    """Leaves of the graph that are nobody's parameters."""
    leaves = [leaf for leaf in evidence.leaves if leaf.within]
    if not leaves or any(op.name == "built" for op in evidence.probed.ops):
        return
    yield Cause(
        "unregistered",
        shorten(leaf.name or f"a tensor of shape {leaf.shape}" for leaf in leaves),
        f"{len(leaves)} tensors of the forward pass that require a gradient are neither the model's "
        "nor in an optimizer",
        "keep layers in nn.ModuleList or nn.ModuleDict, and tensors as nn.Parameter",
        evidence={"tensors": len(leaves)},
        certain=True,
        weight=0.94 if any(step.reached for step in evidence.steps) else 0.9,
    )


def plain_weights(evidence: Evidence) -> Iterator[Cause]:
    """A weight that is no parameter, beside a bias that learns."""
    found = {fact.weight: (op, fact) for op, fact in with_fact(evidence.noted, PlainWeight)}
    if not found:
        return
    op, fact = next(iter(found.values()))
    yield Cause(
        "unregistered",
        ", ".join(filter(None, (shorten(found), op.line))),
        f"{fact.weight} is a plain tensor of shape {fact.shape}, beside {fact.bias}, which learns: nothing trains it, "
        "moves it to a device or saves it",
        f"self.{fact.weight.rpartition('.')[2]} = nn.Parameter(...), or register_buffer(...) if it is meant to stay",
        evidence={"tensors": len(found)},
        certain=True,
        weight=0.94,
    )


FAMILY = Family(
    group="graph",
    order=42,
    rules=(not_registered, plain_weights),
    docs="""
### unregistered

A layer, or a tensor, that takes part in the forward pass is not registered with the module.

```python
class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(8, 64), nn.Linear(64, 64)]
        # fixed: self.layers = nn.ModuleList(self.layers)
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        return self.head(x)


result = run_overfit(Stack, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: often none: the rest of the model learns. These layers are neither trained, moved to a device nor saved.
- **Evidence**: shown, certain: leaves of the graph that are neither the model's nor the batch's nor an optimizer's;
  or an attribute that is no parameter is the weight of a layer whose bias learns.
- **Fix**: `nn.ModuleList`, `nn.ModuleDict`, `nn.Parameter`.
""",
)
