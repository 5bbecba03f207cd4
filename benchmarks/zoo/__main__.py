"""Runs the zoo: every case must pass, with the plugin or in a bare loop.

    python -m benchmarks.zoo [--seeds 3] [--only SUBSTRING] [--bare]

Prints a line per case and seed, for a failure what was missed, and exits with 1 if there was one.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable

import torch

from benchmarks.zoo.bare import train
from benchmarks.zoo.case import Setup, run
from benchmarks.zoo.registry import CASES


def run_bare(setup: Setup, seed: int) -> tuple[bool, str, list[str]]:
    """Whether a bare loop reaches the limit; steps and time; nothing more to tell."""
    curve = train(setup)
    last = f"first {curve.objective[0]:.4g}, last {curve.objective[-1]:.4g}"
    return curve.reached, f"{curve.steps:4d} steps  {curve.ms_per_step:6.2f} ms/step  {last}", []


def run_plugin(setup: Setup, seed: int) -> tuple[bool, str, list[str]]:
    """Whether the plugin finds the case healthy; steps and time; the texts of what it missed."""
    started = time.perf_counter()
    result = run(setup, seed)
    seconds = time.perf_counter() - started
    missed = [finding.text() for finding in result.findings if not finding.passed]
    return result.passed, f"{result.record.steps:4d} steps  {seconds:6.2f} s", missed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 .. N - 1 of every case")
    parser.add_argument("--only", default="", help="cases with this in their family/name")
    parser.add_argument("--bare", action="store_true", help="a plain loop in place of the plugin")
    options = parser.parse_args()
    torch.set_num_threads(1)

    measure: Callable[[Setup, int], tuple[bool, str, list[str]]] = run_bare if options.bare else run_plugin
    chosen = [case for case in CASES if options.only in f"{case.family}/{case.name}"]
    failures = 0
    for case in chosen:
        for seed in range(options.seeds):
            try:
                passed, numbers, missed = measure(case.build(seed), seed)
            except Exception:  # a crash is a failure of this case, and the others still run
                passed, numbers, missed = False, "crashed", [traceback.format_exc()]
            failures += not passed
            name = f"{case.family}/{case.name}"
            print(f"{'pass' if passed else 'FAIL'}  {name:56s} seed {seed}  {numbers}", flush=True)
            for text in missed:
                print("      " + text.replace("\n", "\n      "), flush=True)
    print(f"{len(chosen)} cases, {options.seeds} seeds, {failures} failures")
    return 1 if failures or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
