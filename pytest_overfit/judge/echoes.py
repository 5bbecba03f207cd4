"""One fault is one missed criterion: what a run that stopped for it could not show is not judged."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from pytest_overfit.judge.finding import ECHO, Finding
from pytest_overfit.run.record import RunRecord

# Why a run stopped -> the criterion that says so.
TELLERS = {"non_finite": "finite", "detached": "gradients", "no_trainable_parameters": "gradients"}
OF_THE_END = ("monotonic", "train_val", "prediction", "generates")


def without_echoes(record: RunRecord, findings: Sequence[Finding], limits: Container[str]) -> tuple[Finding, ...]:
    """The findings of a run that stopped at a fault, with that fault missed once.

    Example:
        >>> [(finding.name, finding.missed) for finding in without_echoes(record, findings, {"objective"})]
        [('finite', True), ('objective', False)]
    """
    teller = _teller(record)
    told = next((finding for finding in findings if finding.name == teller and finding.missed), None)
    if told is None:
        return tuple(findings)
    why = f"{ECHO}{told.name} ({told.observed})"
    return tuple(
        replace(finding, observed=why, judged=False, where=None, hint=None, margin=None)
        if finding is not told and finding.missed and _is_echo(record, finding, limits)
        else finding
        for finding in findings
    )


def _teller(record: RunRecord) -> str | None:
    """The criterion that names the fault. A mean over no depth at all is NaN: there the data tell it."""
    seen = record.supervision.frames if record.supervision else ()
    if _began_broken(record) and any(frame.valid == 0 for frame in seen):
        return "supervised"
    return TELLERS.get(record.stop)


def _began_broken(record: RunRecord) -> bool:
    """Whether something is not finite before the first update."""
    return record.stop == "non_finite" and record.non_finite is not None and record.non_finite.step <= 1


def _is_echo(record: RunRecord, finding: Finding, limits: Container[str]) -> bool:
    if finding.name in limits:  # a term that the loss does not give is a fault of its own
        return not record.curves or record.terms.get(finding.name) is not None
    if finding.name == "supervised":
        return _began_broken(record) or record.stop == "detached" or not record.steps
    if finding.name == "finite":
        return record.non_finite is None or _began_broken(record)
    if finding.name == "gradients":
        return _began_broken(record)
    return finding.name in OF_THE_END
