"""A run that stopped early: one criterion says so, and what it could not show is not judged."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from pytest_overfit.judge.finding import ECHO, Finding
from pytest_overfit.run.record import CUT_SHORT, RunRecord
from pytest_overfit.settings.criteria_registry import entries

HINT = "mend what that line waits for; raise max_seconds where it is merely slow"
CUT, TOO_FEW = "the run was cut short", "fewer than 2 steps to compare"
UNFINISHED = (*CUT_SHORT, "non_finite", "no_trainable_parameters", "detached")


def without_echoes(record: RunRecord, findings: Sequence[Finding], limits: Container[str]) -> tuple[Finding, ...]:
    """The findings of a run that stopped at a fault, with that fault missed once.

    Example:
        >>> [(finding.name, finding.missed) for finding in without_echoes(record, findings, {"objective"})]
        [('finite', True), ('objective', False)]
    """
    if record.stop == "max_seconds":
        return _told_once(findings, limits)
    told = next((finding for finding in findings if _tells(record, finding.name, limits)), None)
    if told is None or not told.missed:
        return tuple(findings)
    why = f"{ECHO}{told.name} ({told.observed})"
    return tuple(
        replace(finding, observed=why, judged=False, where=None, hint=None, margin=None)
        if finding is not told and finding.missed and _is_echo(record, finding.name, limits)
        else finding
        for finding in findings
    )


def interrupted(record: RunRecord, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings of a run that was interrupted: nothing is missed, since more steps could have shown it.

    Example:
        >>> [finding.observed for finding in interrupted(record, findings) if not finding.passed]
        ['not judged: interrupted at step 12 of 400']
    """
    why = f"not judged: interrupted at step {record.steps} of {record.planned_steps}"
    return tuple(
        replace(each, observed=why, allowed="", where=None, hint=None, margin=None, judged=False, hint_stands=False)
        if each.missed
        else each
        for each in findings
    )


def _told_once(findings: Sequence[Finding], limits: Container[str]) -> tuple[Finding, ...]:
    """Of a run that its time ended: the first limit says so; what only more steps could have shown is not judged."""
    missed = [finding for finding in findings if finding.missed]
    first = next((finding for finding in missed if finding.name in limits and finding.hint_stands), None)
    if first is None:
        return tuple(findings)
    late = [
        f
        for f in missed
        if f is not first and (f.hint_stands or f.observed.startswith((CUT, TOO_FEW)) or _is_learnt(f.name))
    ]
    why = f"{ECHO}{first.name} (cut short)"
    return tuple(
        replace(finding, observed=why, judged=False, where=None, hint=None, margin=None, hint_stands=False)
        if finding in late
        else finding
        for finding in findings
    )


def _is_learnt(name: str) -> bool:
    return name in entries() and entries()[name].load().learning


def _tells(record: RunRecord, name: str, limits: Container[str]) -> bool:
    """Whether this criterion is the one that names the fault."""
    return name not in limits and name in entries() and entries()[name].load().tells(record)


def _is_echo(record: RunRecord, name: str, limits: Container[str]) -> bool:
    if name in limits:  # a term that the loss does not give is a fault of its own
        return not record.curves or record.terms.get(name) is not None
    return name in entries() and entries()[name].load().echoes(record)


def began_broken(record: RunRecord) -> bool:
    """Whether something is not finite before the first update."""
    return record.stop == "non_finite" and record.non_finite is not None and record.non_finite.step <= 1


def judge_hung(record: RunRecord, names: Sequence[str], limits: Container[str]) -> tuple[Finding, ...]:
    """One fault is one failure: the first limit is missed for it, or the first criterion; the others are not judged.

    Example:
        >>> [(finding.name, finding.missed) for finding in judge_hung(record, ["finite", "objective"], {"objective"})]
        [('finite', False), ('objective', True)]
    """
    hang = record.hung
    told = "HUNG" if hang is None else f"HUNG: {hang.text()}"
    allowed = "to come back within max_seconds" + ("" if hang is None else f" ({hang.limit:g} s)")
    at = f"step {record.steps + 1} of {record.planned_steps}" if record.steps else None
    red = next((name for name in names if name in limits), names[0] if names else "")
    return tuple(
        Finding(name, False, told, allowed, where=at, hint=HINT) if name == red else unjudged(name, red)
        for name in names
    )


def unjudged(name: str, first: str) -> Finding:
    """A criterion that is not judged, since the run hung."""
    return Finding(name, False, f"not judged: the run hung, see {first}", "a run that comes back", judged=False)
