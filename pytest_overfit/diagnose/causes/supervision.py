"""What of the batch, and of what the model returns, the loss reads at all."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.movement import FreeScale
from pytest_overfit.diagnose.operation import LOSS, Comparison
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.judge.finding import number


def vacuous(evidence: Evidence) -> Iterator[Cause]:
    """Nothing is supervised, or nothing can be wrong."""
    empty = next((op for op, compared in evidence.ops(Comparison) if compared.supervised == 0), None)
    itself = next((op for op, compared in evidence.ops(Comparison) if compared.same), None)
    curve = evidence.objective
    zero = bool(curve) and max(map(abs, curve)) == 0
    limited = filter(None, map(evidence.record.terms.get, evidence.limits))
    silent = next((t for t in limited if len(c := evidence.record.curves.get(t, ())) > 1 and not any(c)), None)
    if empty is not None:
        yield Cause(
            "vacuous",
            empty.where,
            f"{empty.name} has no supervised element: every label is ignored",
            "look at the labels, or fail on a batch without any",
            evidence={"supervised": 0.0},
            certain=True,
            weight=0.975,
        )
    elif itself is not None and evidence.record.non_finite is None and (zero or _deaf(evidence)):
        yield Cause(
            "vacuous",
            itself.where,
            "the prediction is compared with itself",
            "compare it with the target",
            certain=True,
            weight=0.96,
        )
    elif (zero or silent) and evidence.record.non_finite is None:
        what = "the objective" if zero else silent
        yield Cause(
            "vacuous",
            LOSS if zero else f"term {silent}",
            f"{what} is exactly 0 in all {len(curve)} steps: nothing is supervised, or nothing can be wrong",
            "look for an empty mask, a margin that every sample keeps, a target of zeros",
            evidence={"objective" if zero else str(silent): 0.0},
            certain=True,
            weight=0.965,
        )
    elif (
        "supervised" in evidence.missed
        and evidence.record.supervision is not None
        and evidence.record.non_finite is None
    ):
        seen = evidence.record.supervision
        if seen.answers and len(seen.unread) == len(seen.answers):
            yield Cause(
                "vacuous",
                LOSS,
                f"the loss does not change when any of {', '.join(seen.unread)} does",
                "compare the prediction with the target of the batch",
                evidence={"unread": len(seen.unread)},
                certain=True,
                weight=0.8,
            )


def _deaf(evidence: Evidence) -> bool:
    """Whether the loss answers to no target of the batch."""
    seen = evidence.record.supervision
    return (
        seen is not None
        and bool(seen.answers)
        and all(key in seen.inputs or key in seen.unread for key in seen.answers)
    )


def weighed_down(evidence: Evidence) -> Iterator[Cause]:
    """The objective falls to nothing by a scalar that weighs it, whatever the model predicts."""
    found = evidence.fact(FreeScale)
    if found is not None:
        name = found.scalars[0]
        yield Cause(
            "vacuous",
            shorten(found.scalars),
            f"{shorten(found.scalars)} moved, and no output is made of it: {number(found.times)} times as far, with "
            f"all else as it started, it brings the objective from {number(found.start)} to {number(found.reached)}, "
            "whatever the model predicts",
            f"add what holds {name} back, its logarithm, as in loss * exp(-s) + s of an uncertainty that is learned; "
            "or keep it fixed",
            evidence={"start": found.start, "reached": found.reached},
            certain=True,
            weight=0.95,
        )


def ignores_output(evidence: Evidence) -> Iterator[Cause]:
    """The loss answers to nothing that the model returns."""
    if evidence.probed.weights_alone:
        yield Cause(
            "loss-ignores-output",
            LOSS,
            "no output of a model that is trained is in what is differentiated, and its gradient is the same for "
            "another batch: it comes from the weights alone",
            "compute the loss from the output of the model that is trained",
            certain=True,
            weight=0.95,
        )
        return
    found = evidence.probed.floor
    if found is not None and found.low and len(found.unread) == len(found.low) and not evidence.learned:
        yield Cause(
            "loss-ignores-output",
            LOSS,
            f"no gradient of the loss reaches {', '.join(found.unread)}",
            "compare the model's own output with the target",
            evidence={"outputs": len(found.unread)},
            certain=True,
            weight=0.9,
        )


FAMILY = Family(
    group="loss",
    order=100,
    rules=(vacuous, weighed_down, ignores_output),
    docs="""
### vacuous

The loss supervises nothing: an empty mask, labels that are all ignored, a prediction compared with itself.

```python
def loss(model, batch):
    error = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    valid = batch[1] > 2  # fixed: valid = batch[1] >= 0
    return (error * valid).sum() / valid.sum().clamp(min=1)


result = run_overfit(net, (features, classes), loss, optimizer=adam, max_steps=200)
```

- **Symptom**: the loss, or a term that has a limit, is 0, or already below its limit, before any training.
- **Evidence**: shown, certain: the objective, and how it answers when targets are changed. Or a scalar that no output
  is made of brings the objective of the initial model to nothing, on the way that it went in the run.
- **Fix**: mend the mask or the labels; let a batch without any supervision be an error.

### loss-ignores-output

The loss does not depend on what the model returns.

```python
def loss(model, batch):
    restored = model(batch["noisy"])
    return F.mse_loss(batch["noisy"], batch["clean"])  # fixed: return F.mse_loss(restored, batch["clean"])


batch = {"noisy": values + 0.3 * torch.randn(12, 3), "clean": values}
result = run_overfit(net(width=3), batch, loss, optimizer=adam, max_steps=400)
```

- **Symptom**: `backward()` raises, or the loss is the same at every step.
- **Evidence**: shown, certain: no output of the model is in the graph of the loss, and none was cut off; or the
  gradient is zero for all of them; or it is that of the weights alone, the same for another batch.
- **Fix**: compare the model's output with the target.
""",
)
