"""How safely a config passes: one whole pytest process per seed, with steps to pass, margins, time and memory.

    python benchmarks/seeds.py example_configs/single_pair_test.yaml --seeds 10 [--set KEY=VALUE ...]

A margin is limit / observed for losses (the smallest over the seeds is what counts); time and memory are of the whole
process, imports and rendering included.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest


class Collector:
    """Keeps the findings of a session."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = getattr(report, "overfit", None)
        if row is not None:
            self.rows.append(row)


def run_one(arguments: list[str]) -> None:
    """The child process: runs pytest and prints its findings as the last line."""
    collector = Collector()
    code = pytest.main(["-q", "-p", "no:cacheprovider", *arguments], plugins=[collector])
    print(json.dumps({"code": int(code), "rows": collector.rows}))


def run_seed(config: Path, seed: int, settings: list[str], folder: str) -> dict[str, Any]:
    """One seed in a process of its own; wall seconds and peak MiB of that process are added."""
    arguments = ["--overfit-config", str(config), "--overfit-log-dir", folder, "--overfit-set", f"seed_value={seed}"]
    for setting in settings:
        arguments += ["--overfit-set", setting]
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, __file__, "--child", *arguments], stdout=subprocess.PIPE, text=True, cwd=folder
    )
    assert child.stdout is not None
    output = child.stdout.read()
    _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    outcome: dict[str, Any] = json.loads(output.splitlines()[-1])
    return {**outcome, "seconds": time.perf_counter() - started, "mib": usage.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    margins: dict[str, list[float]] = {}
    print(f"{'seed':>4} {'code':>4} {'seconds':>8} {'MiB':>6}  headline")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            outcome = run_seed(options.config.absolute(), seed, options.set, folder)
            headline = next((row["run"]["headlines"][0] for row in outcome["rows"] if row["run"]), "no run")
            print(f"{seed:>4} {outcome['code']:>4} {outcome['seconds']:8.1f} {outcome['mib']:6.0f}  {headline}")
            for finding in (row["finding"] for row in outcome["rows"]):
                if not finding["passed"]:
                    print(f"       missed {finding['name']}: {finding['observed']}")
                if finding["margin"] is not None:
                    margins.setdefault(finding["name"], []).append(finding["margin"])
                if finding["name"] in ("monotonic", "prediction"):
                    print(f"       {finding['observed']}")
            sys.stdout.flush()
    for name, values in margins.items():
        shown = "below 0" if math.isinf(min(values)) else f"{min(values):.2f}x"
        print(f"smallest margin of {name}: {shown}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_one(sys.argv[2:])
    else:
        main()
