"""Detection, naming, false alarms and cost of the plugin over the gallery."""

from __future__ import annotations

import contextlib
import io
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.gallery.case import Bug, is_held_out
from benchmarks.gallery.causes import GROUPS, group_of
from benchmarks.gallery.families import FAMILIES
from benchmarks.gallery.verify import run_plain
from benchmarks.zoo.case import Setup, run


@dataclass(frozen=True)
class Seen:
    """What one run of the plugin said: ``causes`` best first, ``missed`` criteria, ``raised`` in place of a result."""

    passed: bool
    causes: tuple[str, ...]
    missed: tuple[str, ...]
    raised: str
    seconds: float

    @property
    def said(self) -> str:
        """The findings that were missed, or the exception, in a few words."""
        return self.raised or ", ".join(self.missed) or "passed"


@dataclass(frozen=True)
class Row:
    """All runs of one bug, and the seconds of a plain loop of the same setup with its first seed."""

    bug: Bug
    seen: tuple[Seen, ...]
    plain_seconds: float


def judge(setup: Setup, seed: int) -> Seen:
    """One run of the plugin over a setup, as a user would call it."""
    started = time.perf_counter()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            result = run(setup, seed)
    except Exception as error:  # what the model or the step raises comes through, and is a detection
        frame = traceback.extract_tb(error.__traceback__)[-1]
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        at = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
        return Seen(False, (), (), f"{type(error).__name__}: {first} [{at}]", time.perf_counter() - started)
    causes = tuple(cause.id for cause in getattr(result, "causes", ()))
    missed = tuple(finding.name for finding in result.findings if not finding.passed)
    return Seen(result.passed, causes, missed, "", time.perf_counter() - started)


def measure(bugs: Sequence[Bug], seeds: int, *, peers: bool = False) -> int:
    """Runs everything and prints it; 1 where nothing was chosen."""
    rows = [_row(bug, seeds) for bug in bugs]
    families = sorted({bug.family for bug in bugs}) if len(bugs) < 20 else sorted(FAMILIES)
    alarms = {family: [judge(FAMILIES[family](seed), seed) for seed in range(seeds)] for family in families}
    named = any(seen.causes for row in rows for seen in row.seen)

    print(f"{len(bugs)} bugs over {len({bug.family for bug in bugs})} families, {seeds} seeds\n")
    print(f"{'':22}{'bugs':>5}{'breaking':>13}{'silent':>13}" + (f"{'first':>13}{'in three':>13}" if named else ""))
    for title, chosen in _parts(rows):
        if chosen:
            print(f"{title:22}{len(chosen):5}" + "".join(f"{cell:>13}" for cell in _cells(chosen, named)))
    if not named:
        print("no causes were given: detection only")
    _print_alarms(alarms)
    ratios = sorted(row.seen[0].seconds / row.plain_seconds for row in rows if row.plain_seconds > 0)
    if ratios:
        mean = sum(row.seen[0].seconds for row in rows) / len(rows)
        plain = sum(row.plain_seconds for row in rows) / len(rows)
        print(f"\nseconds per case {mean:.2f}, a plain loop {plain:.2f}; median ratio {ratios[len(ratios) // 2]:.2f}")
    _print_misses(rows, named)
    if peers:
        from benchmarks.gallery.peers import compare

        compare(bugs, families)
    return 0 if rows else 1


def _row(bug: Bug, seeds: int) -> Row:
    seen = tuple(judge(bug.build(seed), seed) for seed in range(seeds))
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_plain(bug.build(0))
    return Row(bug, seen, time.perf_counter() - started)


def _parts(rows: Sequence[Row]) -> Iterable[tuple[str, list[Row]]]:
    """All rows, the held-out third and the rest, then group by group of the best cause."""
    yield "all", list(rows)
    yield "held-out third", [row for row in rows if row.bug.held_out]
    yield "the other two", [row for row in rows if not row.bug.held_out]
    for group in GROUPS:
        yield group, [row for row in rows if group_of(row.bug.causes[0]) == group]


def _cells(rows: Sequence[Row], named: bool) -> list[str]:
    cells = [_share([row for row in rows if row.bug.kind == kind], _detected) for kind in ("breaking", "silent")]
    if named:
        cells += [_share(rows, _first), _share(rows, _in_three)]
    return cells


def _share(rows: Sequence[Row], good: Callable[[Bug, Seen], bool]) -> str:
    """Of the runs, those for which ``good`` holds."""
    runs = [(row.bug, seen) for row in rows for seen in row.seen]
    hits = sum(good(bug, seen) for bug, seen in runs)
    return f"{hits}/{len(runs)} {100 * hits / len(runs):.0f}%" if runs else "-"


def _detected(bug: Bug, seen: Seen) -> bool:
    return not seen.passed


def _first(bug: Bug, seen: Seen) -> bool:
    return seen.causes[:1] != () and seen.causes[0] in bug.causes


def _in_three(bug: Bug, seen: Seen) -> bool:
    return any(cause in bug.causes for cause in seen.causes[:3])


def _print_alarms(alarms: dict[str, list[Seen]]) -> None:
    """Healthy families that were not passed, with what was held against them."""
    runs = sum(len(seen) for seen in alarms.values())
    false = sum(not each.passed for seen in alarms.values() for each in seen)
    held_out = sum(not each.passed for family, seen in alarms.items() if is_held_out(family) for each in seen)
    print(f"\nfalse alarms: {false} of {runs} runs of {len(alarms)} healthy families ({held_out} held out)")
    for family, seen in alarms.items():
        for seed, each in enumerate(seen):
            if not each.passed:
                print(f"  {family} seed {seed}: {each.said}; {', '.join(each.causes)}")


def _print_misses(rows: Sequence[Row], named: bool) -> None:
    """Bugs that some seed did not detect, and, where causes are given, those that no seed names first."""
    print("\nmisses")
    for row in rows:
        passed = sum(seen.passed for seen in row.seen)
        right = sum(_first(row.bug, seen) for seen in row.seen)
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
