"""A run whose code did not come back: one criterion says so, and none of the others can be judged."""

from __future__ import annotations

from collections.abc import Container, Sequence

from pytest_overfit.judge.finding import Finding
from pytest_overfit.run.record import RunRecord

HINT = "mend what that line waits for; raise max_seconds where it is merely slow"


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
