"""All criteria of a run record in one call, and the findings of several seeds as one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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


Verdict = tuple[int, Sequence[Finding]]  # a seed and the findings of its run


def combine(verdicts: Sequence[Verdict], *, needed: int | None = None) -> tuple[Finding, ...]:
    """One finding per criterion over all seeds, its worst one shown, and one on how many seeds passed.

    Example:
        >>> ok, bad = Finding("objective", True, "0.001", "< 0.01"), Finding("objective", False, "0.3", "< 0.01")
        >>> [finding.passed for finding in combine([(0, [ok]), (1, [bad])], needed=1)]
        [True, True]

    Args:
        needed: how many of the seeds have to pass; None: all.
    """
    count = len(verdicts) if needed is None else needed
    names = list(dict.fromkeys(finding.name for _, findings in verdicts for finding in findings))
    combined = [_worst(name, verdicts, count) for name in names]
    passed = [seed for seed, found in verdicts if any(f.passed for f in found) and not any(f.missed for f in found)]
    shown = ", ".join(map(str, passed)) or "none"
    allowed = f"at least {count} of {len(verdicts)}"
    observed = f"{len(passed)} of {len(verdicts)} seeds pass ({shown})"
    return (*combined, Finding("seeds", len(passed) >= count, observed, allowed))


def _worst(name: str, verdicts: Sequence[Verdict], needed: int) -> Finding:
    """The finding of the seed that did worst; it fails where fewer seeds than needed hold it."""
    of_name = [(seed, finding) for seed, findings in verdicts for finding in findings if finding.name == name]
    holding = sum(not finding.missed and finding.echo_of is None for _, finding in of_name)
    seed, worst = min(of_name, key=lambda item: (*_rank(item[1]), _margin(item[1])))
    passed = worst.judged and holding >= needed and any(finding.passed for _, finding in of_name)
    alike = worst.passed and worst.margin is None
    told = worst.observed if alike else f"seed {seed}: {worst.observed}"
    steps = [finding.steps_to_pass for _, finding in of_name if finding.steps_to_pass is not None]
    return replace(worst, passed=passed, observed=told, steps_to_pass=max(steps, default=None))


def _rank(finding: Finding) -> tuple[bool, bool, bool]:
    """The worst first; what only echoes a fault of its run says less than what another run was judged by."""
    return finding.echo_of is not None, not finding.missed, finding.passed


def _margin(finding: Finding) -> float:
    return float("inf") if finding.margin is None else finding.margin
