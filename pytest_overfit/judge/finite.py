"""The criterion of finite numbers: losses, predictions, gradients, parameters, the optimizer's state."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.stopped import began_broken
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criterion import Criterion


def judge_finite(record: RunRecord, infinite: Sequence[str] = ()) -> Finding:
    """Is every loss term, prediction, gradient, parameter and optimizer state finite at every step?

    What is infinite from the start in the same places is a mask or a bound, and has not gone wrong.

    Args:
        infinite: globs over places that are declared not to be judged.
    """
    allowed = "finite losses, predictions, gradients and state"
    bad = record.non_finite
    if bad is None:
        if record.steps == 0:
            return Finding("finite", False, "no step was made", allowed, hint="see ::gradients and ::objective")
        declared = f"; declared: {', '.join(infinite)} infinite" if infinite else ""
        return Finding("finite", True, f"{record.steps} steps, all finite{declared}", allowed)
    return Finding(
        "finite",
        False,
        f"{bad.what} is not finite at step {bad.step}",
        allowed,
        where=f"first in module {bad.module}"
        if bad.module
        else f"step {bad.step}, {record.device}, seed {record.seed}",
        hint="a loss that replaces NaN by 0 hides this: "
        + ("mend the module named here, then look at its inputs" if bad.module else "look at what makes this output")
        if bad.what.startswith("prediction")
        else "look at the learning rate, clip gradients, or guard the square root, logarithm or division that made it",
    )


FINITE = Criterion(
    "finite",
    "no NaN, no infinity: in losses, outputs, gradients",
    judge=lambda record, setting, criteria: judge_finite(record, criteria.infinite),
    tells=lambda record: record.stop == "non_finite",
    echoes=lambda record: record.non_finite is None or began_broken(record),
)
