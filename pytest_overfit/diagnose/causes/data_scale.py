"""The data: are the numbers that the model and the loss are given of a size that can be learnt?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family
from pytest_overfit.diagnose.movement import ConstantAnswer
from pytest_overfit.diagnose.operation import Comparison
from pytest_overfit.diagnose.queries import is_given, proof
from pytest_overfit.diagnose.trial import TrialKind
from pytest_overfit.judge.finding import number

NOTHING = 0.1  # of the limit: what tells nothing is no near miss
FAR = 50.0  # from zero, in units of a standardised number
WEIGHING = ("Linear", "Conv1d", "Conv2d", "Conv3d")  # layers that multiply what they are given with weights


def scales(evidence: Evidence) -> Iterator[Cause]:
    """Numbers far from zero mean and unit deviation."""
    trials: tuple[tuple[str, TrialKind], ...] = (
        ("input-scale", "standardised inputs"),
        ("target-scale", "standardised targets"),
    )
    for kind, change in trials:
        proven = evidence.proof(change)
        if evidence.learned:
            return
        for tensor in evidence.probed.tensors:
            if (
                tensor.is_target != (kind == "target-scale")
                or not (tensor.is_target or is_given(evidence, tensor))
                or not tensor.dtype.startswith(("float", "bfloat"))
                or not tensor.finite
                or math.prod(tensor.shape) < 4
            ):
                continue
            largest = max(abs(tensor.low), abs(tensor.high), abs(tensor.mean) + tensor.deviation)
            wide = max(tensor.deviation, tensor.column_deviation[1])
            odd = (largest > FAR and (kind == "input-scale" or is_compared(evidence, largest))) or (
                kind == "input-scale" and 0 < wide < 0.02
            )
            if not odd and not (proven and tensor.key in proven.trial.detail):
                continue
            yield Cause(
                kind,
                tensor.key,
                f"{tensor.key} has a mean of {number(tensor.mean)} and a deviation of {number(tensor.deviation)} "
                f"({number(tensor.low)} to {number(tensor.high)})" + proof(proven, "once standardised"),
                f"standardise it: subtract {number(tensor.mean)} and divide by {number(tensor.deviation)}, or change "
                "its unit",
                "proven" if proven else "shown",
                {"mean": tensor.mean, "deviation": tensor.deviation},
                weight=0.87 if largest > FAR else 0.8,
            )
            break


def fed(evidence: Evidence) -> Iterator[Cause]:
    """The first layers are given numbers far from zero that the batch does not hold: made, and not scaled, on the way.

    Only what is new counts: behind a layer that itself makes large numbers the cause is another one.
    """
    if evidence.learned or not evidence.steps:
        return
    known = max((max(abs(t.low), abs(t.high)) for t in evidence.probed.tensors if is_given(evidence, t)), default=0.0)
    largest = max(2 * FAR, 2 * known)
    for module in evidence.steps[0].modules:
        if module.kind in WEIGHING and module.fed > largest:
            yield Cause(
                "input-scale",
                f"module {module.name} ({module.kind})",
                f"{module.name} is given numbers of up to {number(module.fed)}, and the inputs of the batch end at "
                f"{number(known)}",
                "scale them to about -1..1 before the layer, or embed them",
                evidence={"fed": module.fed, "inputs": known},
                weight=0.86,
            )
            return
        largest = max(largest, 2 * module.size if module.finite else largest)


def nothing_told(evidence: Evidence) -> Iterator[Cause]:
    """One number for all targets is far below the limit, and the run has not come below that: it has proved nothing."""
    found, limit = evidence.fact(ConstantAnswer), evidence.limit_of_objective()
    trained = evidence.objective[-1] if evidence.objective else math.nan
    if found is None or limit is None or not 0 <= found.reached < min(NOTHING * limit, trained):
        return
    yield Cause(
        "target-scale",
        found.key,
        f"the targets differ by {number(found.deviation)}: their mean in place of every prediction has an objective of "
        f"{number(found.reached)}, the trained model {number(trained)}, and the limit is {number(limit)}",
        f"scale {found.key} to a deviation of about 1, or lower the limit to a tenth of {number(found.reached)}",
        evidence={"deviation": found.deviation, "constant": found.reached, "trained": trained},
        certain=True,
        weight=0.93,
    )


def is_compared(evidence: Evidence, largest: float) -> bool:
    """Whether numbers of that size meet a prediction in the loss; camera matrices, say, do not as they are."""
    return any(max(map(abs, met.targets)) > 0.5 * largest for _, met in evidence.ops(Comparison) if met.targets)


FAMILY = Family(
    group="data",
    order=10,
    rules=(scales, fed, nothing_told),
    docs="""
### target-scale

Targets have a wrong scale or unit.

```python
targets = 3000 * values  # fixed: targets = values
result = run_overfit(net, (features, targets), F.mse_loss, optimizer=adam, max_steps=300)
```

- **Symptom**: the loss starts in the millions and falls in a straight line.
- **Evidence**: proven: mean and deviation of the targets, and a run that passes once they are standardised.
  Certain: their mean in place of every prediction is far below the limit, and below what the trained model reaches.
- **Fix**: change the unit, or subtract the mean and divide by the deviation.

### input-scale

Inputs are not normalised, or huge.

```python
inputs = 1000 + features  # fixed: inputs = features
result = run_overfit(net, (inputs, classes), nn.CrossEntropyLoss(), optimizer=adam, max_steps=200)
```

- **Symptom**: the loss jumps and then stays on a plateau: all samples look alike to the model.
- **Evidence**: proven: mean and deviation of the inputs, and a run that passes once they are standardised.
- **Fix**: subtract the mean and divide by the deviation, per channel or column.
""",
)
