"""Runs the gallery: which bugs are detected, which are named, and what healthy families are blamed for.

    python -m benchmarks.gallery [--seeds 3] [--only SUBSTRING] [--peers]
    python -m benchmarks.gallery --verify

With --verify every case is checked in a plain loop in place of the plugin, and the exit is 1 if one is not as it says.
"""

from __future__ import annotations

import argparse
import sys

import torch

from benchmarks.gallery.registry import BUGS
from benchmarks.gallery.verify import verify


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gallery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 .. N - 1 of every case")
    parser.add_argument("--only", default="", help="bugs and families with this in their file/family/name")
    parser.add_argument("--verify", action="store_true", help="a plain loop in place of the plugin")
    parser.add_argument("--peers", action="store_true", help="other libraries that test training, where installed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [bug for bug in BUGS if options.only in f"{bug.family}/{bug.name}"]
    if options.verify:
        return verify_all(chosen, options.seeds)
    from benchmarks.gallery.measure import measure

    return measure(chosen, options.seeds, peers=options.peers)


def verify_all(bugs: list, seeds: int) -> int:  # type: ignore[type-arg]
    """A line per bug that is not what it says."""
    failures = 0
    for bug in bugs:
        problems = {seed: found for seed in range(seeds) if (found := verify(bug, seed))}
        failures += bool(problems)
        for seed, found in problems.items():
            print(f"FAIL  {bug.family}/{bug.name}  seed {seed}  {'; '.join(found)}", flush=True)
    print(f"{len(bugs)} bugs, {seeds} seeds, {failures} not as they say")
    return 1 if failures or not bugs else 0


if __name__ == "__main__":
    sys.exit(main())
