"""The data: does the sample stay, is it one, does it ask for one answer?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.operation import LOSS, Drawn, InPlace
from pytest_overfit.judge.finding import number
from pytest_overfit.run.record import ALL_AT_ONCE


def not_finite(evidence: Evidence) -> Iterator[Cause]:
    """NaN or infinity in what the run was given."""
    for tensor in evidence.probed.tensors:
        if not tensor.finite and not evidence.passed:
            place = f"{tensor.key}{list(tensor.bad_at) if tensor.bad_at is not None else ''}"
            yield Cause(
                "nonfinite-data",
                place,
                f"{place} of the batch is not finite",
                "clean it in the data set, or mask it out before the loss",
                weight=0.98,
            )
            return


def changes(evidence: Evidence) -> Iterator[Cause]:
    """The sample is another one at every step."""
    batch = evidence.record.batch
    written = next(evidence.ops(InPlace), None)
    if batch is not None and batch.fingerprint_start != batch.fingerprint_end:
        where = f"{written[1].written_to}, {written[0].where}" if written else "the batch"
        yield Cause(
            "batch-changes",
            where,
            "the batch is not what it was at the start"
            + (f": {written[1].written_by}() writes into {written[1].written_to}" if written else ""),
            "work on a copy: x = x.clone(), or use the operation without the underscore",
            certain=True,
            weight=0.97,
        )
    elif batch is not None and (batch.randomness or (batch.redraw_differences and not evidence.stochastic)):
        differ = () if evidence.stochastic else batch.redraw_differences
        why = [text for text in batch.randomness if not text.startswith(ALL_AT_ONCE)]
        options = [text.removeprefix(ALL_AT_ONCE) for text in batch.randomness if text.startswith(ALL_AT_ONCE)]
        yield Cause(
            "batch-changes",
            "; ".join(differ[:3]) or "config",
            "; ".join([*([_differing(differ)] if differ else []), *why]),
            " ".join(options)
            or (
                "switch that off for this test: the run trained on one frozen draw"
                if why
                else "switch off augmentation, shuffling and sampling for this test, or pass one batch"
            ),
            evidence={"tensors": len(differ)} if differ else {},
            certain=True,
            weight=0.97,
        )
    elif evidence.probed.permuted_input and not evidence.stochastic:
        yield Cause(
            "batch-changes",
            "the forward pass",
            "in training mode the model turns or reorders its input at random before the first layer sees it",
            "move augmentation out of the model, and switch it off for this test",
            certain=True,
            weight=0.9,
        )
    else:
        yield from _drawn_in_the_loss(evidence)


def _differing(differences: Sequence[str]) -> str:
    return f"two draws of the data differ in {len(differences)} tensors: {differences[0]}"


def _drawn_in_the_loss(evidence: Evidence) -> Iterator[Cause]:
    """Noise is added to an input, or labels are drawn, between the batch and the model."""
    proven = evidence.proof("same random numbers")
    for op, drawn in evidence.ops(Drawn):
        if op.region == LOSS and not evidence.learned and (drawn.of_input or drawn.random_by == "randperm"):
            yield Cause(
                "batch-changes",
                op.where,
                f"{drawn.random_by}() is drawn anew in every step outside of the model",
                "draw it once, before the run",
                "proven" if proven else "shown",
                {},
                weight=0.9,
            )
            return


def degenerate(evidence: Evidence) -> Iterator[Cause]:
    """Inputs or targets that are all alike."""
    tensors = evidence.probed.tensors
    samples = evidence.probed.samples
    targets = [t for t in tensors if t.is_target and t.shape and not t.dtype.startswith("bool")]
    for tensor in tensors:
        if (not tensor.is_input and not tensor.is_target) or math.prod(tensor.shape) < 4 or tensor.dtype == "bool":
            continue
        if tensor.is_target and len(targets) > 1 and evidence.passed:
            continue  # of several targets one may well be constant in one batch
        real = tensor.dtype.startswith(("float", "bfloat"))
        flat = tensor.deviation == 0 and tensor.low == tensor.high
        labels = tensor.is_target and len(targets) == 1 and not real and tensor.shape[:1] == (samples,)
        if flat and (real or labels or (tensor.is_input and len(tensor.shape) > 1 and not evidence.passed)):
            zero = tensor.low == 0 and tensor.is_target
            # A mask of ones, a state of zeros: beside an input that tells the samples apart it may be meant.
            # So may the input of a sample that is alone.
            beside = tensor.is_input and (
                any(t.is_input and t.deviation > 0 for t in tensors) or (tensor.shape[0] == 1 and evidence.learned)
            )
            yield Cause(
                "degenerate-batch",
                tensor.key,
                f"every element of {tensor.key} is {number(tensor.low)} (shape {tensor.shape})",
                "look at the loader: an integer division, a fill value, a wrong column",
                "observed" if beside else "shown",
                {"value": tensor.low},
                certain=not beside and (tensor.is_input or zero or labels or not evidence.passed),
                weight=0.4 if beside else 0.96,
            )
            return
    given = [t for t in tensors if t.is_input and t.shape]  # a class or a number of each sample tells them apart
    inputs = [t for t in given if t.dtype.startswith("float") and math.prod(t.shape) >= 8]
    answered = any(not t.is_input and t.shape[:1] == (samples,) for t in tensors)
    if (
        samples
        and samples > 2
        and inputs
        and answered
        and all(t.distinct_rows == 1 and t.shape[0] == samples for t in given)
    ):
        conflict = bool(evidence.probed.repeated)
        yield Cause(
            "degenerate-batch",
            ", ".join(t.key for t in inputs),
            f"all {samples} samples have the same input",
            "look at the index of the data set: it hands out one sample again and again",
            evidence={"samples": samples},
            certain=True,
            weight=0.9 if conflict else 0.95,
        )


def conflict(evidence: Evidence) -> Iterator[Cause]:
    """One input, several targets."""
    for inputs, (target, samples) in evidence.probed.repeated.items():
        if evidence.learned:
            return
        yield Cause(
            "label-conflict",
            f"{inputs} against {target}",
            f"{samples} of {evidence.probed.samples} samples repeat the input of another one and have another {target}",
            "remove or correct the repeated samples: no function fits both",
            evidence={"samples": samples},
            weight=0.95,
        )
        return
    best, limit, seen = min(evidence.objective, default=0.0), evidence.limit_of_objective(), evidence.probed.beginnings
    if seen is None or not evidence.probed.causal or evidence.learned or limit is None:
        return
    if (
        limit < seen.floor
        and 0.9 * seen.floor < best < 2 * seen.floor
        and any(op.name == "cross_entropy" for op in evidence.noted)
    ):
        yield Cause(
            "label-conflict",
            seen.key,
            f"rows {seen.rows[0]} and {seen.rows[1]} of {seen.key} are alike up to place {seen.place} and go on "
            f"differently, and the model reads only what comes before: over all rows that leaves at least "
            f"{number(seen.floor)} of the loss, which is at {number(best)}",
            "give sequences different beginnings, or leave the shared beginning out of the loss",
            evidence={"floor": seen.floor, "loss": best},
            weight=0.93,
        )


FAMILY = Family(
    group="data",
    order=20,
    rules=(not_finite, changes, degenerate, conflict),
    docs="""
### batch-changes

The sample is not the same at every step.

```python
from torch.utils.data import DataLoader, TensorDataset

data = TensorDataset(features, classes)
loader = DataLoader(data, batch_size=12, shuffle=True)  # fixed: loader = DataLoader(data, batch_size=12)
result = run_overfit(net, loader, nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: in a loop of your own the loss jumps; here the first batch is kept, and `constant_batch` fails.
- **Evidence**: shown, certain: two draws are compared, and the batch before and after the run, and what the model sees
  of it.
- **Fix**: no augmentation, shuffling or sampling in this test, or one batch; no in-place operation on inputs.

### degenerate-batch

Inputs or targets are constant, identical or zero.

```python
images = torch.randint(0, 255, (12, 8), dtype=torch.uint8)
inputs = (images // 255).float()  # fixed: inputs = images / 255
result = run_overfit(net, (inputs, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=300)
```

- **Symptom**: the loss falls to what the frequencies of the classes give; or to 0 at once where targets are constant.
- **Evidence**: shown, certain: every tensor of the batch is looked at, element by element and sample by sample.
- **Fix**: look at the loader: an integer division, a fill value, an index that stays.

### nonfinite-data

A NaN or infinity is in the batch.

```python
inputs = features.clone()
inputs[3, 2] = float("nan")  # fixed: inputs[3, 2] = 0.0
result = run_overfit(net, (inputs, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: the loss is NaN from the first step.
- **Evidence**: shown: the first place of the batch that is not finite. Certain where samples teach nothing whose target
  holds no number at all: a loss that leaves out NaN says nothing of it.
- **Fix**: clean it in the data set, or mask it out before the loss (a factor of 0 does not: 0 times NaN is NaN).

### label-conflict

The same input has different targets.

```python
inputs = features.clone()
inputs[1] = inputs[0]  # fixed: inputs[1] = 0.0
result = run_overfit(net, (inputs, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: the loss falls to a plateau while all other samples are right.
- **Evidence**: shown: samples with equal inputs are compared in their targets.
- **Fix**: remove or correct the repeated samples.
""",
)
