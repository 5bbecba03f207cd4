"""Several runs that differ in their seed, as one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pytest_overfit.judge.finding import Finding

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
