"""Runs the gallery: which bugs are detected, which are named, and what healthy families are blamed for.

    python -m benchmarks.gallery [--seeds 3] [--only SUBSTRING | --sample 40] [--jobs 2] [--write-table]
    python -m benchmarks.gallery [--cost] [--peers]
    python -m benchmarks.gallery --verify

Every row is compared with table.csv beside this file; the exit is 1 if one got worse, has no entry or was not run.
With --verify every case is checked in a plain loop in place of the plugin, and the exit is 1 if one is not as it says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gallery.case import Bug
from benchmarks.gallery.families import FAMILIES
from benchmarks.gallery.measure import judge_all, plain_seconds, row_of
from benchmarks.gallery.registry import BUGS, CASES, PLACES
from benchmarks.gallery.summary import BugRuns, print_summary
from benchmarks.gallery.table import TABLE, Key, Row, compare, merge, read, sample, write
from benchmarks.gallery.verify import verify


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gallery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 .. N - 1 of every case")
    parser.add_argument("--only", default="", help="bugs with this in their family/name, and their families")
    parser.add_argument("--sample", type=int, metavar="N", help="N cases, spread over kinds and files, always the same")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the cases")
    parser.add_argument("--table", type=Path, default=TABLE, metavar="FILE", help="what the rows are compared with")
    parser.add_argument("--write-table", action="store_true", help="the rows of this run replace those of the table")
    parser.add_argument("--cost", action="store_true", help="the seconds of a plain loop beside those of the plugin")
    parser.add_argument("--peers", action="store_true", help="other libraries that test training, where installed")
    parser.add_argument("--verify", action="store_true", help="a plain loop in place of the plugin")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cases = sample(list(CASES), options.sample, PLACES) if options.sample else _chosen(options.only)
    bugs = [bug for case in cases if (bug := CASES[case]) is not None]
    if options.verify:
        return verify_all(bugs, options.seeds)
    keys = [(case, seed) for case in cases for seed in range(options.seeds)]
    seen = judge_all(keys, options.jobs)
    families = [case for case in cases if CASES[case] is None]
    by_case = {case: tuple(seen[case, seed] for seed in range(options.seeds)) for case in cases}
    runs = [BugRuns(bug, by_case[bug.case], plain_seconds(bug) if options.cost else None) for bug in bugs]
    print_summary(runs, {family: by_case[family] for family in families}, options.seeds)
    if options.peers:
        from benchmarks.gallery.peers import compare as compare_peers

        compare_peers(bugs, families)
    return _against_table(
        [row_of(key, seen[key]) for key in keys], keys, options.table, write_table=options.write_table
    )


def _chosen(only: str) -> list[str]:
    """All cases, or the bugs whose family/name has ``only`` in it, and the healthy families of these bugs."""
    bugs = [bug for bug in BUGS if only in bug.case]
    families = {bug.family for bug in bugs}
    return [*(bug.case for bug in bugs), *(name for name in FAMILIES if only in name or name in families)]


def _against_table(rows: Sequence[Row], keys: Sequence[Key], path: Path, *, write_table: bool) -> int:
    """Prints every row that is not as the table has it; 1 where one is worse and the table is to stay, or none ran."""
    table = read(path)
    gone = [key for key in table if key[0] not in CASES]
    changes = compare(table, rows, [*keys, *gone])
    print(f"\nagainst the table ({len(rows)} rows)")
    for change in changes:
        print(f"  {change}")
    worse = sum(change.difference == "worse" for change in changes)
    print(f"{len(rows)} rows, {worse} worse, {sum(change.difference == 'better' for change in changes)} better")
    if write_table:
        write(merge(table, rows, CASES).values(), path)
        return 0
    return 1 if worse or not rows else 0


def verify_all(bugs: Sequence[Bug], seeds: int) -> int:
    """A line per bug that is not what it says."""
    failures = 0
    for bug in bugs:
        problems = {seed: found for seed in range(seeds) if (found := verify(bug, seed))}
        failures += bool(problems)
        for seed, found in problems.items():
            print(f"FAIL  {bug.case}  seed {seed}  {'; '.join(found)}", flush=True)
    print(f"{len(bugs)} bugs, {seeds} seeds, {failures} not as they say")
    return 1 if failures or not bugs else 0


if __name__ == "__main__":
    sys.exit(main())
