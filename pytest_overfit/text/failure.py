"""A failed run as the text of a failing test: what was missed and why in one line, then what to change. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.limits import OUT_OF_TIME
from pytest_overfit.settings.cause_ids import IDS

MOST_LINES = 25
MOST_CAUSES = 3
MOST_WIDTH = 240
HEAD_WIDTH = 120  # what a list of failures shows of each
LIMITS = ("<", ">")
OURS = ("AssertionError: ", "Failed: ")  # kinds of error that say nothing beside a first line of ours
SHAPES = "  shapes: "  # of the call that was refused
DEFECTS = "defects"  # the criterion that repeats a cause
NOT_NAMED = "why: no cause is proven, shown or observed; docs/causes.md says what was looked for"
NOT_ALL_ASKED = "why: no cause is proven, shown or observed, and not everything was asked"


def headline(missed: Sequence[Finding], causes: Sequence[Cause]) -> str:
    """What was missed, and the strongest cause, within ``HEAD_WIDTH`` characters.

    Example:
        >>> camera = Finding("camera", False, "loss_camera 0.158 (start 0.2)", "< 0.001 for 5 steps in a row")
        >>> headline([camera], [Cause("frozen", "", "16 of 78 tensors are frozen by '*camera_head*'", "")])
        "loss_camera 0.158, allowed < 0.001: 16 of 78 tensors are frozen by '*camera_head*'"

    Args:
        missed: the first limit is told, else the first one; a mistake in a run that learns, by its cause alone.
        causes: the strongest first.
    """
    shown = [finding for finding in missed if finding.name != DEFECTS]
    first = min(shown, key=lambda finding: not finding.allowed.startswith(LIMITS), default=None)
    why = _why(causes[0]) if causes else ""
    if first is not None and first.observed.startswith(OUT_OF_TIME) and causes and causes[0].strength == "observed":
        why = ""  # its time is what is known of it
    what = causes[0].id if first is None and causes else ""
    if first is not None:
        limited = first.allowed.startswith(LIMITS)
        what = short(first) if limited or not first.observed else f"{first.name}: {first.observed}"
        room = HEAD_WIDTH - len(why) - len(": ")
        if limited and why:
            # What a number proves is said below: the cause comes whole.
            what = what if len(what) <= room else first.observed.partition(" (")[0].partition(" and ")[0]
            what = clipped(what, max(HEAD_WIDTH // 2, room))
        elif why and len(what) > room:
            part = what.partition("; ")[0]
            what = part if len(part) <= room else first.name
    return clipped(": ".join(part for part in (what, why) if part) or "no criterion was judged", HEAD_WIDTH)


def short(finding: Finding) -> str:
    """What was seen against what is allowed, without the rest of the curve.

    Example:
        >>> short(Finding("camera", False, "loss_camera 0.158 (start 0.2)", "< 0.001 for 5 steps in a row"))
        'loss_camera 0.158, allowed < 0.001'
    """
    return f"{finding.observed.partition(' (')[0]}, allowed {finding.allowed.partition(' for ')[0]}"


def echo(finding: Finding, cause: Cause, teller: str) -> str:
    """One line of a criterion whose cause another one tells, within ``HEAD_WIDTH`` characters.

    Example:
        >>> echo(Finding("camera", False, "loss_camera 0.158 (start 0.2)", "< 0.001 for 5 steps"), cause, "objective")
        'loss_camera 0.158, allowed < 0.001: frozen, see ::objective'
    """
    tail = f": {cause.id}, see ::{teller}"
    limited = finding.allowed.startswith(LIMITS)
    return clipped(short(finding) if limited else f"{finding.name}: {finding.observed}", HEAD_WIDTH - len(tail)) + tail


def first_line(findings: Sequence[Finding], causes: Sequence[Cause], error: str | None = None) -> str:
    """The line by which a failure is known wherever it is told; empty where nothing failed.

    Args:
        findings: all of them.
        causes: the strongest first.
        error: what kept a run from being judged.
    """
    missed = [finding for finding in findings if finding.missed]
    return headline(missed, causes) if missed else error_line(error or "")


def error_line(error: str) -> str:
    """The line of an error that says most: what was called with which shapes, where that is known.

    Example:
        >>> error_line("RuntimeError: no\\n  shapes: mse_loss of (8, 4), (8,)\\n  where: a.py:3")
        'mse_loss of (8, 4), (8,): no'
    """
    first, *rest = error.strip().splitlines() or [""]
    if shapes := next((line.removeprefix(SHAPES) for line in rest if line.startswith(SHAPES)), ""):
        first = f"{shapes}: {first.partition(': ')[2]}"
    return clipped(next((first.removeprefix(kind) for kind in OURS if first.startswith(kind)), first), HEAD_WIDTH)


def alone(finding: Finding) -> str:
    """A finding without a cause: of a limit its first line, and the whole of it.

    Example:
        >>> print(alone(Finding("camera", False, "loss_camera 0.158 (start 0.2)", "< 0.001 for 5 steps in a row")))
        loss_camera 0.158, allowed < 0.001
        camera: loss_camera 0.158 (start 0.2), allowed < 0.001 for 5 steps in a row
    """
    head, text = headline([finding], ()), finding.text()
    return f"{head}\n{text}" if finding.allowed.startswith(LIMITS) or len(text.splitlines()[0]) > HEAD_WIDTH else text


def _why(cause: Cause) -> str:
    return cause.observed.partition("; ")[0]


def failure_text(
    findings: Sequence[Finding], causes: Sequence[Cause], *, diagnosed: bool, notes: Sequence[str] = ()
) -> str:
    """The headline, where and what to change, further causes, and the missed criteria: at most ``MOST_LINES`` lines.

    Where a cause stands, a criterion is one line: what to change is the cause's to say.

    Args:
        findings: all of them.
        causes: the strongest first.
        diagnosed: whether anybody looked for a cause.
        notes: what has to be known about the diagnosis: that it was interrupted, or what was not asked.
    """
    missed = [finding for finding in findings if finding.missed]
    noted = [f"note: {note}" for note in notes]
    if causes and len(noted) > 1:
        noted = [noted[0], f"note: {'; '.join(notes[1:])}"]
    if not causes and diagnosed and missed:
        noted.insert(0, NOT_ALL_ASKED if notes else NOT_NAMED)
    head = headline(missed, causes)
    why = told(head, causes)
    counted = missed_lines(findings, causes, most=MOST_LINES - len(why) - len(noted) - 1)
    return "\n".join([head, *(clipped(line) for line in (*why, *counted, *noted))])


def told(head: str, causes: Sequence[Cause], *, most: int = MOST_CAUSES) -> list[str]:
    """Below a headline: where, what to change and where to read on; of the first cause what the headline has not said.

    Example:
        >>> print("\\n".join(told("objective 0.5, allowed < 0.01: passes with a learning rate of 0.0001", [cause])))
          where: (Adam), group 0
          change: set lr=0.0001
          why: lr-high (proven); pytest-overfit explain lr-high
    """
    if not causes:
        return []
    first = causes[0]
    said, _, rest = first.observed.partition("; ")
    rest = rest if head.endswith(said) else first.observed
    why = f"{first.id} ({first.strength}){': ' if rest else ''}{rest}"
    lines = [f"  where: {first.where}", f"  change: {first.advice}", f"  why: {why}"]
    if first.id in IDS:
        explain = f"; pytest-overfit explain {first.id}"
        lines[-1] = clipped(lines[-1], MOST_WIDTH - len(explain)) + explain
    return [*lines, *cause_lines(causes[1:], most=most - 1)]


def missed_lines(findings: Sequence[Finding], causes: Sequence[Cause], *, most: int = MOST_LINES) -> list[str]:
    """How many criteria were missed, and each of them: in full where no cause is known and there is room."""
    missed = [finding for finding in findings if finding.missed]
    if not missed:
        return []
    head = f"{len(missed)} of {len(findings)} criteria missed"
    shown = [finding for finding in missed if finding.name != DEFECTS or not causes]
    if not shown:
        return [f"{head}: {DEFECTS}"]
    full = [
        line
        for finding in shown
        for line in finding.text().splitlines()[: None if finding.hint_stands or not causes else 1]
    ]
    if len(full) < most:
        return [head, *full]
    lines, room = [finding.text().splitlines()[0] for finding in shown], max(1, most - 1)
    if len(lines) > room:
        rest = ", ".join(finding.name for finding in shown[room - 1 :])
        lines = [*lines[: room - 1], f"and {len(lines) - room + 1} more: {rest}"]
    return [head, *lines]


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


def clipped(line: str, width: int = MOST_WIDTH) -> str:
    """A line that is no longer than this; one that is ends in dots, behind a whole word where there is one.

    Example:
        >>> clipped("the rate is too low", 15)
        'the rate is...'
    """
    if len(line) <= width:
        return line
    cut = line[: width - 3]
    whole = cut.rfind(" ")
    return (cut[:whole] if whole > width // 2 else cut).rstrip(" ,;:(") + "..."
