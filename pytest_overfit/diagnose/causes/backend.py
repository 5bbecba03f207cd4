"""The same run learns when it is executed otherwise: eager, in full precision, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.queries import passes
from pytest_overfit.diagnose.trial import TrialKind

HOWS: Mapping[TrialKind, tuple[str, str, str]] = {  # of a trial: where, how it passes, what to change
    "eager": (
        "torch.compile",
        "eager in place of compiled",
        "train without torch.compile, and look for what was compiled in: twins=['compile'] names the first module",
    ),
    "full precision": (
        "mixed precision",
        "in full precision",
        "amp=False, or keep the module that differs out of autocast: twins=['bfloat16'] names it",
    ),
    "on the CPU": (
        "the accelerator",
        "on the CPU",
        "look for a kernel or a switch of the accelerator (tf32, fused attention): twins=['device'] names the module",
    ),
}


def executed_otherwise(evidence: Evidence) -> Iterator[Cause]:
    """A run that does not learn, and does where one thing of its execution is exchanged."""
    for kind, (where, how, advice) in HOWS.items():
        if (proven := evidence.proof(kind)) is not None:
            steps = {"steps": float(proven.passed_at or 0)}
            yield Cause("backend", where, passes(proven, how), advice, "proven", steps, weight=0.97)


FAMILY = Family(
    group="numerics",
    rules=(executed_otherwise,),
    docs="""
### backend

The model learns, and this way of executing it does not: compiled, in low precision, or on the accelerator.

```python
class Offset(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.net = nn.Linear(8, 8), nn.LayerNorm(8), net()
        nn.init.constant_(self.first.bias, 2048.0)  # which the norm takes away again, with what bfloat16 has left

    def forward(self, x):
        return self.net(self.norm(self.first(x)))


amp = "bfloat16"  # fixed: amp = False
result = run_overfit(Offset, (features, classes), nn.CrossEntropyLoss(), optimizer=adam, amp=amp, max_steps=200)
```

- **Symptom**: the loss falls in one place and not in another.
- **Evidence**: proven: the run passes from the same start, executed otherwise.
- **Fix**: what `twins` names (docs/twins.md): the first module whose outputs, or gradients, differ.
""",
)
