"""The criterion of finite numbers: losses, predictions, gradients, parameters, the optimizer's state."""

from __future__ import annotations

from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.stopped import began_broken
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criterion import Criterion


def judge_finite(record: RunRecord) -> Finding:
    """Is every loss term, prediction, gradient, parameter and optimizer state finite at every step?"""
    allowed = "finite losses, predictions, gradients and state"
    bad = record.non_finite
    if bad is None:
        if record.steps == 0:
            return Finding("finite", False, "no step was made", allowed, hint="see ::gradients and ::objective")
        return Finding("finite", True, f"{record.steps} steps, all finite", allowed)
    return Finding(
        "finite",
        False,
        f"{bad.what} is not finite at step {bad.step}",
        allowed,
        where=f"first in module {bad.module}"
        if bad.module
        else f"step {bad.step}, {record.device}, seed {record.seed}",
        hint="a loss that replaces NaN by 0 hides this: mend the module named here, then look at its inputs"
        if bad.what.startswith("prediction")
        else "lower the learning rate, clip gradients, or guard the square root, logarithm or division that made it",
    )


FINITE = Criterion(
    "finite",
    "no NaN, no infinity: in losses, outputs, gradients",
    judge=lambda record, setting, criteria: judge_finite(record),
    tells=lambda record: record.stop == "non_finite",
    echoes=lambda record: record.non_finite is None or began_broken(record),
)
