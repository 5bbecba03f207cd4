"""Runs programs of public libraries, healthy and with mistakes, under the plugin, and prints what it made of them.

    python -m benchmarks.wild [--part tuned|held-out|both] [--sample 400] [--healthy [N]] [--jobs 2] [--seed 0]
    python -m benchmarks.wild --list
    python -m benchmarks.wild --show tuned --read FILE.json

The sample is split evenly over the parts; --healthy adds every healthy program of them, or N. A part is its operators
on its libraries. The exit is 1 where a run of the plugin crashed.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.wild.case import Program
from benchmarks.wild.measure import Row, entry_of, row_from
from benchmarks.wild.operators import OPERATORS
from benchmarks.wild.report import detail, line, table
from benchmarks.wild.split import PARTS, Part, part_of_library, parts_of_operators


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, or reads, a sample; 1 where one of its runs crashed."""
    options = _parser().parse_args(arguments)
    warnings.simplefilter("ignore")
    parts: tuple[Part, ...] = PARTS if options.part == "both" else (options.part,)
    if options.show and options.show != "tuned" and not options.reveal:
        print("held-out cases are shown with --reveal alone: what was looked at has to move over to the tuned part")
        return 2
    if options.read is not None:
        rows = [row_from(entry) for entry in json.loads(options.read.read_text(encoding="utf-8"))["rows"]]
    else:
        programs = _collected(options.only)
        if options.list:
            return _list(programs)
        rows = _measured(options, parts, programs)
    for row in rows:
        if part_of_library(row.library) == options.show:
            print(detail(row))
    print(table(line(part, [row for row in rows if part_of_library(row.library) == part]) for part in parts))
    return 1 if any(row.raised or row.broke for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.wild", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=(*PARTS, "both"), default="both", help="which half (default both)")
    parser.add_argument("--sample", type=int, default=400, metavar="N", help="broken cases, over both parts (400)")
    parser.add_argument(
        "--healthy", type=int, nargs="?", const=10**6, default=0, metavar="N", help="healthy programs too: all, or N"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the sample, and of the models")
    parser.add_argument("--seconds", type=float, default=600, help="after which a case counts as one that hangs")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="libraries, or library/class")
    parser.add_argument("--write", type=Path, metavar="FILE", help="every case and what was said of it, as JSON")
    parser.add_argument("--read", type=Path, metavar="FILE", help="print what a run has written in place of a run")
    parser.add_argument("--list", action="store_true", help="operators, libraries and parts, and nothing else")
    parser.add_argument("--show", choices=PARTS, metavar="PART", help="the cases of a part one by one")
    parser.add_argument(
        "--reveal",
        action="store_true",
        help="show held-out cases: whoever looks adds the operators and libraries to LOOKED_AT of split.py, which "
        "moves them to the tuned part, and new ones take their place",
    )
    return parser


def _collected(only: Sequence[str]) -> tuple[Program, ...]:
    from benchmarks.wild.registry import collect

    collected = collect(only)
    for name, why in collected.missing.items():
        print(f"{name}: not installed ({why})", file=sys.stderr)
    return collected.programs


def _list(programs: Sequence[Program]) -> int:
    operators = parts_of_operators()
    for each in OPERATORS:
        print(f"{operators[each.id]:9} {each.kind:10} {each.id:32} {' '.join(each.causes)}: {each.text}")
    for library, count in sorted(Counter(each.library for each in programs).items()):
        print(f"{part_of_library(library):9} {library:32} {count} programs")
    return 0


def _measured(options: argparse.Namespace, parts: Sequence[Part], programs: Sequence[Program]) -> list[Row]:
    """The rows of these parts; a word on stderr for every case, which does not say how it went."""
    import pytest_overfit.api  # noqa: F401 - before the processes fork
    from benchmarks.wild.sample import draw, healthy_rows, order

    operators = parts_of_operators()
    rows: list[Row] = []

    def tell(row: Row) -> None:
        rows.append(row)
        print(f"{len(rows):4} {row.case}", file=sys.stderr, flush=True)
        if options.write is not None:  # a run that is ended early leaves what it has
            content = {"seed": options.seed, "rows": [entry_of(each) for each in rows]}
            options.write.write_text(json.dumps(content, indent=1), encoding="utf-8")

    how = {"seed": options.seed, "jobs": options.jobs, "seconds": options.seconds}
    for part in reversed(parts):
        here = [each for each in programs if part_of_library(each.library) == part]
        mistakes = [each for each in OPERATORS if operators[each.id] == part]
        drawn = draw(mistakes, here, options.sample // len(parts), tell=tell, **how)
        well = order(here, str(options.seed))[: options.healthy // len(parts)]
        healthy_rows(well, tell=tell, **how)
        why = Counter(each.why.partition(":")[0] for dropped in drawn.dropped.values() for each in dropped)
        print(f"{part}: {len(drawn.rows)} cases; dropped {dict(why)}", file=sys.stderr)
    return rows


if __name__ == "__main__":
    sys.exit(main())
