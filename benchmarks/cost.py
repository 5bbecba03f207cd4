"""What looking costs: a passing run with everything that is on by default, over a bare loop of the same steps.

    python benchmarks/cost.py [--repeats 3] [--only SUBSTRING]

Every case of the zoo that takes at least 100 steps, in one process: the two are timed in turn, the median ratio of each
case counts. The run is timed as a whole: snapshot, probes, training, judging, diagnosis, restoration.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

from benchmarks.zoo.bare import train
from benchmarks.zoo.case import Case, run
from benchmarks.zoo.registry import CASES

LEAST_STEPS = 100


def measure(case: Case, repeats: int) -> tuple[int, float, float, float] | None:
    """(steps, ratio, seconds of the bare loop, seconds more); None for a short or failed run."""
    ratios, bares, extra, steps = [], [], [], 0
    for _ in range(repeats):
        setup = case.build(0)
        started = time.perf_counter()
        result = run(setup, 0)
        whole, steps = time.perf_counter() - started, result.record.steps
        if steps < LEAST_STEPS or not result.passed:
            return None
        bare = train(case.build(0), max_steps=steps, stop_early=False).seconds
        ratios.append(whole / bare)
        bares.append(bare)
        extra.append(whole - bare)
    return steps, statistics.median(ratios), statistics.median(bares), statistics.median(extra)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        if options.only not in case.name or (row := measure(case, options.repeats)) is None:
            continue
        rows.append(row)
        print(f"{case.name:32} {row[0]:5} steps  {row[1]:5.2f}x  bare {row[2]:6.2f} s  {row[3]:+6.2f} s", flush=True)
    ratios = sorted(row[1] for row in rows)
    print(
        f"{len(rows)} cases of at least {LEAST_STEPS} steps: median {statistics.median(ratios):.3f}x, "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}; at most {max(row[3] for row in rows):.2f} s more"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
