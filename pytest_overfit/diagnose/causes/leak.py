"""The answer is in the input."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import Comparison, keys_read
from pytest_overfit.errors.suggest import shorten


def leaks(evidence: Evidence) -> Iterator[Cause]:
    """The answer is in the input."""
    compared = [pair for pair in evidence.ops(Comparison) if pair[1].targets is not None]
    if compared and all(fact.adds_target for _, fact in compared):
        yield Cause(
            "leak",
            compared[0][0].where,
            "what is compared is an output plus the target itself: a model that returns zeros is perfect",
            "compare the output by itself, or add what is not the target",
            certain=True,
            weight=0.94,
        )
        return
    for leak in evidence.probed.leaks:
        where, what = leak.where, leak.what
        advice = "mask the future (is_causal=True), and keep the target out of the input"
        if leak.own == "after":
            continue
        if leak.own:  # either the targets were not shifted, or the mask lets the place itself through
            advice = "shift the targets by one place, or leave the place itself out of the mask"
            if leak.own == "before":
                advice = "shift the targets the other way: tokens[:, :-1] in, tokens[:, 1:] out"
        elif leak.module:
            where, what = f"module {leak.module}", f"{what} ({leak.where}): later places arrive in {leak.module}"
            opened = _open(evidence, leak.module)
            advice = f"mask the future in {shorten(opened or [leak.module])} (is_causal=True)"
            if _masked(evidence, leak.module) or leak.module in opened[1:]:  # those before it let nothing through
                advice = (
                    f"the mask inside {leak.module} leaves the future out: bring the axes back into their order before "
                    "heads or places are joined, x.transpose(1, 2).reshape(batch, length, width)"
                )
        apart = not evidence.probed.mixing_is_certain or evidence.probed.mixed_where != leak.module
        yield Cause(
            "leak", where, what, advice, certain=True, weight=0.9 if apart else 0.8
        )  # as all of a batch is mixed
        if leak.own:
            if leak.own == "same":
                advice = "shift the targets by one place: tokens[:, :-1] in, tokens[:, 1:] out"
            yield Cause("target-mismatch", where, what, advice, "shown", {}, certain=True, weight=0.89)
        return


def stands_in(evidence: Evidence) -> Iterator[Cause]:
    """A target is among the columns of an input, and what is held against it answers to them."""
    seen = evidence.record.supervision
    if seen is not None and seen.copied:
        yield Cause(
            "leak",
            seen.copied.partition(" stands in ")[2] or seen.copied,
            f"{seen.copied}, and what is held against it moves with it",
            "take it out of the input, or read of every place only what stands before it",
            certain=True,
            weight=0.95,
        )


def _open(evidence: Evidence, module: str) -> list[str]:
    """The attentions in the same place of all layers whose masks let the future through."""
    place = re.sub(r"\d+", "#", module)
    alike = [(op.region, read) for op, read in keys_read(evidence.noted) if re.sub(r"\d+", "#", op.region) == place]
    return list(dict.fromkeys(region for region, read in alike if not read.causal))


def _masked(evidence: Evidence, module: str) -> bool:
    """Whether all attention inside of a module is causal already."""
    reads = [read for op, read in keys_read(evidence.noted) if f"{op.region}.".startswith(f"{module}.")]
    return bool(reads) and all(read.causal for read in reads)


FAMILY = Family(
    group="architecture",
    order=182,
    rules=(leaks, stands_in),
    docs="""
### leak

The answer leaks into the input.

```python
class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attend = nn.Embedding(10, 32), nn.MultiheadAttention(32, 1, batch_first=True)
        self.head = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 10))

    def forward(self, tokens):
        x, mask = self.embed(tokens), None
        # fixed: mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
        return self.head(x + self.attend(x, x, x, attn_mask=mask)[0])


def loss(model, batch):
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


tokens = torch.tensor([[0, 4, 7, 5, 9, 8], [1, 6, 4, 8, 7, 5], [2, 9, 6, 7, 4, 8]])
result = run_overfit(Predictor, tokens, loss, optimizer=adam, max_steps=150)
```

- **Symptom**: the loss falls fast, and what is generated is nonsense.
- **Evidence**: shown, certain: one place of a sequence is changed, and the output that has to predict it changes with
  it, first in the module that is named; or the target is a column of the input, or is added to the output that is
  compared with it.
- **Fix**: mask the future (`is_causal=True`), shift by one, keep targets out of the inputs.
""",
)
