"""Tensors that are meant to be one."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.movement import Declared
from pytest_overfit.judge.finding import number


def tie_lost(evidence: Evidence) -> Iterator[Cause]:
    """What the model says is one tensor are two, and they differ."""
    declared = evidence.fact(Declared)
    learns = {p.name for p in evidence.record.parameters if p.moved}
    for tie in () if declared is None else declared.ties:
        if not {tie.first, tie.second} & learns:
            continue
        yield Cause(
            "tie-lost",
            f"{tie.first}, {tie.second}",
            f"{tie.said_by} ties {tie.first} to {tie.second}: they are two tensors, and differ by up to "
            f"{number(tie.apart)} at the end",
            f"call {tie.said_by} once the parts are in place"
            if tie.said_by.endswith("()")
            else f"assign the one to the other once both are in place: model.{tie.first} = model.{tie.second}",
            evidence={"apart": tie.apart},
            certain=True,
            weight=0.94,
        )
        return


FAMILY = Family(
    group="graph",
    order=43,
    rules=(tie_lost,),
    docs="""
### tie-lost

Tensors that the model, or its config, says are tied are two.

```python
class Words(nn.Module):
    def __init__(self, tie_embeddings):
        super().__init__()
        self.tie_embeddings = tie_embeddings
        self.embed, self.mix = nn.Embedding(12, 32), nn.Linear(32, 32)
        self.head = nn.Linear(32, 12, bias=False)

    def tie_weights(self):
        if self.tie_embeddings:
            self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.mix(self.embed(ids)).tanh())


model = Words(tie_embeddings=True)
# fixed: model.tie_weights()
ids = torch.arange(12)
result = run_overfit(model, (ids, ids.roll(1)), nn.CrossEntropyLoss(), optimizer=adam, max_steps=1000)
```

- **Symptom**: none: more parameters are trained than the model is said to have, and a checkpoint of one loads wrong.
- **Evidence**: shown, certain: the model's own `tie_weights()` makes one tensor of two that differ at the end; or a
  switch of its config says so. Two that only begin as the same numbers may go apart on purpose.
- **Fix**: tie them after heads are replaced, copies made and weights loaded.
""",
)
