"""False alarms of twins: each of them over healthy programs of public libraries.

    python -m benchmarks.twins [--only LIBRARY ...] [--twins NAME ...] [--sample 5] [--seed S] [--simulated]

Run it where the libraries are installed (see ``benchmarks.wild``). Programs are drawn by a seeded order out of those
of ``benchmarks/wild``, which are healthy: a twin that disagrees there is a false alarm, printed with where it differs,
until somebody finds that the program does what the twin says (a contrastive loss that does not add up over
micro-batches). What was not asked is counted apart, with its reasons. For `workers` the batch is put into a DataLoader,
`port` holds a model against its copy; `--simulated` registers the device of tests/support, where there is no
accelerator.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from benchmarks.wild.case import Program
from benchmarks.wild.measure import healthy_call
from benchmarks.wild.registry import collect
from benchmarks.wild.split import part_of_library
from pytest_overfit import run_overfit
from pytest_overfit.run.twin_record import PORT, TWINS, TwinResult
from tests.support import simulated

STEPS = 12  # of a run: a twin compares ten


def results_of(program: Program, twins: Sequence[str]) -> Iterator[TwinResult]:
    """The twins of one healthy program."""
    call: dict[str, Any] = {**healthy_call(program, 0), "max_steps": STEPS, "objective": 1e9, "hold_steps": STEPS}
    if "workers" in twins:
        call["data"] = DataLoader([call["data"]], batch_size=None)
    if PORT in twins:
        call["port_of"] = copy.deepcopy(call["model"]), {}
    asked = [name for name in twins if name != PORT]
    result = run_overfit(**call, twins=asked or None, diagnose=False, supervised=False)
    yield from result.record.twins


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per program and twin, then a table; exits 1 on a false alarm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--twins", nargs="*", default=TWINS, choices=(*TWINS, PORT))
    parser.add_argument("--sample", type=int, default=5, help="programs of each library")
    parser.add_argument("--seed", default="", help="draws others")
    parser.add_argument("--simulated", action="store_true", help="register the simulated device of the tests")
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args(arguments)
    if asked.simulated:
        simulated.register()
    by_library: dict[str, list[Program]] = {}
    for program in collect(asked.only).programs:
        if asked.only or part_of_library(program.library) == "tuned":
            by_library.setdefault(program.library, []).append(program)
    counts: Counter[tuple[str, str]] = Counter()
    rows = []
    for library, programs in by_library.items():
        drawn = random.Random(library + asked.seed).sample(programs, min(asked.sample, len(programs)))
        for program in drawn:
            started = time.perf_counter()
            try:
                found = list(results_of(program, asked.twins))
            except Exception as error:  # of one program: the others are run all the same
                print(f"{program.name}: {type(error).__name__}: {error}", flush=True)
                continue
            for twin in found:
                counts[twin.name.partition(" (")[0], twin.outcome] += 1
                rows.append({"program": program.name, **asdict(twin), "curve": ()})
                print(f"{program.name}: {twin.text()}", flush=True)
            print(f"{program.name}: {time.perf_counter() - started:.1f} s", flush=True)
    for name in asked.twins:
        told = ", ".join(f"{counts[name, outcome]} {outcome}" for outcome in ("agreed", "disagreed", "not asked"))
        print(f"{name}: {told}")
    if asked.write:
        asked.write.write_text(json.dumps(rows, indent=1))
    return int(any(outcome == "disagreed" for _, outcome in counts.elements()))


if __name__ == "__main__":
    raise SystemExit(main())
