"""A failed run as the text of a failing test: what was missed, why, and what to change, on one screen."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.judge.finding import Finding

MOST_LINES = 25
MOST_CAUSES = 3
MOST_WIDTH = 240
NOT_NAMED = "why: no cause is proven, shown or observed; docs/causes.md says what was looked for"
NOT_ALL_ASKED = "why: no cause is proven, shown or observed, and not everything was asked"


def failure_text(
    findings: Sequence[Finding], causes: Sequence[Cause], *, diagnosed: bool, notes: Sequence[str] = ()
) -> str:
    """The missed criteria and the causes, at most ``MOST_LINES`` lines.

    Criteria are told in full where there is room, else in one line each.

    Args:
        findings: all of them.
        causes: the strongest first.
        diagnosed: whether anybody looked for a cause.
        notes: what has to be known about the diagnosis: that it was interrupted, or what was not asked.
    """
    missed = [finding for finding in findings if finding.missed]
    why = [*cause_lines(causes), *(f"note: {note}" for note in notes)]
    if not causes and diagnosed and missed:
        why.insert(0, NOT_ALL_ASKED if notes else NOT_NAMED)
    head = f"{len(missed)} of {len(findings)} criteria missed"
    told = [line for finding in missed for line in finding.text().splitlines()] or ["no criterion was judged"]
    if len(told) + len(why) + 1 > MOST_LINES:
        told = [finding.text().splitlines()[0] for finding in missed]
        room = max(1, MOST_LINES - len(why) - 1)
        if len(told) > room:
            told = [
                *told[: room - 1],
                f"and {len(told) - room + 1} more: {', '.join(f.name for f in missed[room - 1 :])}",
            ]
    return "\n".join([head, *(_clipped(line) for line in (*told, *why))])


def cause_lines(causes: Sequence[Cause], *, most: int = MOST_CAUSES) -> list[str]:
    """The strongest causes in three lines each, the others by name.

    Example:
        >>> print("\\n".join(cause_lines([cause])))
        why: lr-high (proven): passes in 140 steps with a learning rate of 0.0001 instead of 0.01
          where: (Adam), group 0
          change: set lr=0.0001
    """
    lines = [line for cause in causes[:most] for line in f"why: {cause.text()}".splitlines()]
    if len(causes) > most:
        lines.append(f"     less likely: {', '.join(cause.id for cause in causes[most:])}")
    return lines


def _clipped(line: str) -> str:
    return line if len(line) <= MOST_WIDTH else line[: MOST_WIDTH - 3] + "..."
