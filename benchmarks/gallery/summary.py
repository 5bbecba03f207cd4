"""What all runs of the gallery come to: shares of bugs that are detected and named, false alarms, cost, and misses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gallery.case import Bug, is_held_out
from benchmarks.gallery.causes import GROUPS, group_of
from benchmarks.gallery.measure import Seen, first_is_right, in_three


@dataclass(frozen=True)
class BugRuns:
    """All runs of one bug, and the seconds of a plain loop of the same setup where they were measured."""

    bug: Bug
    seen: tuple[Seen, ...]
    plain_seconds: float | None = None


def print_summary(bugs: Sequence[BugRuns], healthy: Mapping[str, Sequence[Seen]], seeds: int) -> None:
    """Tables of shares, then the cases behind them."""
    named = any(seen.causes for each in bugs for seen in each.seen)
    print(f"{len(bugs)} bugs over {len({each.bug.family for each in bugs})} families, {seeds} seeds\n")
    print(f"{'':22}{'bugs':>5}{'breaking':>13}{'silent':>13}" + (f"{'first':>13}{'in three':>13}" if named else ""))
    for title, chosen in _parts(bugs):
        if chosen:
            print(f"{title:22}{len(chosen):5}" + "".join(f"{cell:>13}" for cell in _cells(chosen, named)))
    if not named:
        print("no causes were given: detection only")
    _print_alarms(healthy)
    _print_cost(bugs)
    _print_misses(bugs, named)


def _print_cost(bugs: Sequence[BugRuns]) -> None:
    """Seconds per case with the first seed, against those of a plain loop."""
    both = [(each.seen[0].seconds, each.plain_seconds) for each in bugs if each.plain_seconds]
    if both:
        ratios = sorted(seconds / plain for seconds, plain in both)
        mean, plain = (sum(column) / len(both) for column in zip(*both, strict=True))
        print(f"\nseconds per case {mean:.2f}, a plain loop {plain:.2f}; median ratio {ratios[len(ratios) // 2]:.2f}")


def _parts(rows: Sequence[BugRuns]) -> Iterable[tuple[str, list[BugRuns]]]:
    """All rows, the held-out third and the rest, then group by group of the best cause."""
    yield "all", list(rows)
    yield "held-out third", [row for row in rows if row.bug.held_out]
    yield "the other two", [row for row in rows if not row.bug.held_out]
    for group in GROUPS:
        yield group, [row for row in rows if group_of(row.bug.causes[0]) == group]


def _cells(rows: Sequence[BugRuns], named: bool) -> list[str]:
    cells = [_share([row for row in rows if row.bug.kind == kind], _detected) for kind in ("breaking", "silent")]
    if named:
        cells += [_share(rows, first_is_right), _share(rows, in_three)]
    return cells


def _share(rows: Sequence[BugRuns], good: Callable[[Bug, Seen], bool]) -> str:
    """Of the runs, those for which ``good`` holds."""
    runs = [(row.bug, seen) for row in rows for seen in row.seen]
    hits = sum(good(bug, seen) for bug, seen in runs)
    return f"{hits}/{len(runs)} {100 * hits / len(runs):.0f}%" if runs else "-"


def _detected(bug: Bug, seen: Seen) -> bool:
    return not seen.passed


def _print_alarms(alarms: Mapping[str, Sequence[Seen]]) -> None:
    """Healthy families that were not passed, with what was held against them."""
    runs = sum(len(seen) for seen in alarms.values())
    false = sum(not each.passed for seen in alarms.values() for each in seen)
    held_out = sum(not each.passed for family, seen in alarms.items() if is_held_out(family) for each in seen)
    print(f"\nfalse alarms: {false} of {runs} runs of {len(alarms)} healthy families ({held_out} held out)")
    for family, seen in alarms.items():
        for seed, each in enumerate(seen):
            if not each.passed:
                print(f"  {family} seed {seed}: {each.said}; {', '.join(each.causes)}")


def _print_misses(rows: Sequence[BugRuns], named: bool) -> None:
    """Bugs that some seed did not detect, and, where causes are given, those that no seed names first."""
    print("\nmisses")
    for row in rows:
        passed = sum(seen.passed for seen in row.seen)
        right = sum(first_is_right(row.bug, seen) for seen in row.seen)
        if not passed and (not named or right == len(row.seen)):
            continue
        bug, seen = row.bug, row.seen
        answers = sorted({" > ".join(each.causes[:3]) or "no cause" for each in seen}) if named else []
        told = "; ".join([*sorted({each.said for each in seen}), *answers])
        print(
            f"  {bug.kind:8} {bug.family}/{bug.name}  expected {', '.join(bug.causes)} ({bug.where})\n"
            f"           passed {passed}, right first {right} of {len(seen)} seeds; {told}"
        )
    raised = sorted({f"{row.bug.name}: {seen.raised}" for row in rows for seen in row.seen if seen.raised})
    print(f"\nraised ({len(raised)})")
    for text in raised:
        print(f"  {text}")
