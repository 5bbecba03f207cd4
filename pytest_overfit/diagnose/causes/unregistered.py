"""Leaves of the graph that are nobody's parameters."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.queries import rebuilt


def not_registered(evidence: Evidence) -> Iterator[Cause]:
    """Leaves of the graph that are nobody's parameters."""
    first = next((step for step in evidence.steps if step.foreign), None)
    if first is None:
        return
    if rebuilt(evidence) is not None:
        return
    kinds = ", ".join(first.outside)
    yield Cause(
        "unregistered",
        kinds or f"tensors of shape {', '.join(first.foreign[:4])}",
        f"{len(first.foreign)} tensors that require a gradient take part in the loss and are neither the model's "
        "nor in an optimizer" + (f"; {kinds} ran and is no submodule" if kinds else ""),
        "keep layers in nn.ModuleList or nn.ModuleDict, and tensors as nn.Parameter",
        evidence={"tensors": len(first.foreign)},
        certain=True,
        weight=0.94 if first.reached else 0.9,
    )


FAMILY = Family(
    group="graph",
    order=42,
    rules=(not_registered,),
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
- **Evidence**: shown, certain: leaves of the graph that are neither the model's nor the batch's nor an optimizer's.
- **Fix**: `nn.ModuleList`, `nn.ModuleDict`, `nn.Parameter`.
""",
)
