"""The table of a report, and its cases one by one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from benchmarks.wild.measure import Row

HEAD = (
    "",
    "cases",
    "detected",
    "breaking",
    "silent",
    "first right",
    "among three",
    "healthy",
    "false alarms",
    "crashes",
    "cost",
)
Test = Callable[[Row], bool]


def share(rows: Sequence[Row], good: Test) -> str:
    """How many, of how many, in per cent."""
    hits = sum(map(good, rows))
    return f"{hits}/{len(rows)} {100 * hits / len(rows):.0f}%" if rows else "-"


def line(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """The cells of one part, in the order of ``HEAD``.

    A red program with a mistake in it proves nothing where the program is red without one: such cases are left out.
    """
    well = [r for r in rows if not r.operator]
    red = {r.program for r in well if not r.passed}
    bad = [r for r in rows if r.operator and r.program not in red]
    left_out = sum(r.program in red for r in rows if r.operator)
    found = [r for r in bad if r.detected]
    costs = [r.cost for r in well if r.cost is not None]
    return (
        name,
        f"{len(bad)} + {left_out}" if left_out else str(len(bad)),
        share(bad, lambda r: r.detected),
        share([r for r in bad if r.effect == "breaks"], lambda r: r.detected),
        share([r for r in bad if r.effect == "silent"], lambda r: r.detected),
        f"{share(bad, lambda r: r.right_among(1))} ({share(found, lambda r: r.right_among(1)).rpartition(' ')[2]})",
        f"{share(bad, lambda r: r.right_among(3))} ({share(found, lambda r: r.right_among(3)).rpartition(' ')[2]})",
        str(len(well)),
        share(well, lambda r: r.detected),
        str(sum(bool(r.raised) for r in rows)) + (f" + {asked}" if (asked := sum(bool(r.broke) for r in rows)) else ""),
        f"{statistics.median(costs):.2f}x of {len(costs)}" if costs else "-",
    )


def table(lines: Iterable[tuple[str, ...]]) -> str:
    """Lines of cells as Markdown, and what the cells say."""
    rows = [HEAD, tuple("---" for _ in HEAD), *lines]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEAD))]
    drawn = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join(
        [
            *drawn,
            "",
            "cases: + those of programs that are red as they are, which are left out.",
            "first right, among three: of all cases (of those that were detected). crashes: runs that ended in an",
            "exception or never, + runs in which a question of the plugin broke. cost: median over passing healthy",
            "runs of 100 steps or more, seconds of CPU over those without a diagnosis.",
        ]
    )


def detail(row: Row) -> str:
    """One case: what it is, what is right, what was said."""
    said = row.raised or ("passed" if row.passed else f"red ({', '.join(row.missed)})")
    mark = (
        "" if not row.operator else ("RIGHT " if row.right_among(1) else "THIRD " if row.right_among(3) else "WRONG ")
    )
    lines = [f"{mark}{row.case}: {row.effect}, {said}"]
    if row.operator:
        lines.append(f"    right: {' '.join(row.right)} at {row.where}; a plain loop reaches {row.plain:.3g}")
    elif not row.passed:
        lines.append(f"    a plain loop reaches {row.plain:.3g}")
    if row.first_line:
        lines.append(f"    {row.first_line}")
    for cause in row.causes[:3]:
        certain = ", certain" if cause.certain else ""
        lines += [f"    {cause.id} ({cause.strength}{certain}): {cause.observed}", f"      where: {cause.where}"]
        lines.append(f"      change: {cause.advice}")
    return "\n".join([*lines, *(f"    broke: {each}" for each in row.broke)])
