"""All criteria of a run record in one call."""

from __future__ import annotations

from pytest_overfit.errors import OverfitError
from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.limits import judge_limit
from pytest_overfit.judge.stopped import judge_hung, without_echoes
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Criteria
from pytest_overfit.settings.criteria_registry import Entry, entries
from pytest_overfit.settings.settings import Budget


def judge(record: RunRecord, criteria: Criteria, *, hold_steps: int = Budget.hold_steps) -> tuple[Finding, ...]:
    """Judges a record by every criterion that is switched on, in the order of ``criteria.names()``.

    Pure: the same record gives the same findings. What has no judge here, as defects, is left to who has.

    Example:
        >>> [finding.name for finding in judge(record, Criteria(objective=Limit(0.001))) if not finding.passed]
        ['objective']
    """
    limits, known = criteria.limits(), entries()
    names = [name for name in criteria.names() if name in limits or known[name].load().judge is not None]
    if record.stop == "hung":
        return judge_hung(record, names, limits)
    findings = [
        judge_limit(record, name, limits[name], hold_steps=hold_steps, limits=limits, unbounded=criteria.unbounded)
        if name in limits
        else _judged(record, known[name], criteria)
        for name in names
    ]
    return without_echoes(record, findings, limits)


def accepts(record: RunRecord, criteria: Criteria) -> bool:
    """Whether a run that has reached its limits may end: all that is awaited beside them holds."""
    on = [entry for name, entry in entries().items() if name in criteria.names()]
    return all(_judged(record, entry, criteria).passed for entry in on if entry.load().awaited)


def _judged(record: RunRecord, entry: Entry, criteria: Criteria) -> Finding:
    """The finding of one criterion.

    Raises:
        OverfitError: the criterion of another package raises, or gives something else.
    """
    judge_one, setting = entry.load().judge, criteria.setting(entry.name)
    assert judge_one is not None
    if entry.is_ours:
        return judge_one(record, setting, criteria)  # type: ignore[no-any-return]
    try:
        finding = judge_one(record, setting, criteria)
    except Exception as error:
        raise OverfitError(
            f"the criterion {entry.name} raised {type(error).__name__}: {error}", where=entry.home, hint="mend it"
        ) from error
    if not isinstance(finding, Finding) or finding.name != entry.name:
        raise OverfitError(f"a {type(finding).__name__}", where=entry.home, allowed=f"a Finding named {entry.name!r}")
    return finding
