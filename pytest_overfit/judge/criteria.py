"""All criteria of a run record in one call."""

from __future__ import annotations

from collections.abc import Callable

from pytest_overfit.judge.agreement import judge_generates, judge_prediction, judge_train_val
from pytest_overfit.judge.echoes import without_echoes
from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.hang import judge_hung
from pytest_overfit.judge.health import judge_constant_batch, judge_finite, judge_gradients, judge_supervised
from pytest_overfit.judge.limits import judge_limit, judge_monotonic
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Criteria


def judge(record: RunRecord, criteria: Criteria, *, hold_steps: int = 5) -> tuple[Finding, ...]:
    """Judges a record by every criterion that is switched on, in the order of ``criteria.names()``.

    Pure: the same record gives the same findings.

    Example:
        >>> [finding.name for finding in judge(record, Criteria()) if not finding.passed]
        ['camera']
    """
    limits = criteria.limits()
    if record.stop == "hung":
        return judge_hung(record, [name for name in criteria.names() if name != "defects"], limits)
    judges: dict[str, Callable[[], Finding]] = {
        "constant_batch": lambda: judge_constant_batch(record, may_differ=criteria.stochastic),
        "finite": lambda: judge_finite(record),
        "gradients": lambda: judge_gradients(record, unused=criteria.unused, frozen=criteria.frozen),
    }
    if (supervised := criteria.supervised) is not None:
        judges["supervised"] = lambda: judge_supervised(record, supervised, limits)
    if (monotonic := criteria.monotonic) is not None:
        judges["monotonic"] = lambda: judge_monotonic(record, monotonic, limits, noisy=criteria.stochastic)
    if (train_val := criteria.train_val) is not None:
        judges["train_val"] = lambda: judge_train_val(record, train_val, limits)
    if (prediction := criteria.prediction) is not None:
        judges["prediction"] = lambda: judge_prediction(record, prediction)
    if criteria.generates:
        judges["generates"] = lambda: judge_generates(record)

    def judge_one(name: str) -> Finding:
        if name in limits:
            return judge_limit(
                record, name, limits[name], hold_steps=hold_steps, limits=limits, unbounded=criteria.unbounded
            )
        return judges[name]()

    findings = [judge_one(name) for name in criteria.names() if name != "defects"]  # diagnose judges that
    return without_echoes(record, findings, limits)
