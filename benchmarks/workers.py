"""Twelve configs with pytest-xdist against one process: wall time and verdicts.

    python benchmarks/workers.py [--config example_configs/quick.yaml] [--configs 12] [--workers 4] [--repeats 3]

Prints the wall and CPU seconds of every repeat and the ratio of the median wall times; exits with 1 if the verdicts
differ or the ratio is above ``--allowed``. Other work on the machine counts into the wall time of both: measure where
nothing else runs. Of the plugins installed here only pytest-overfit and pytest-xdist are loaded.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROW = re.compile(r"^(PASSED|FAILED|ERROR)\s+(\S+?::\S+)", re.MULTILINE)


def write_configs(folder: Path, source: Path, count: int) -> list[Path]:
    """Copies of one config, each with a name of its own, beside whatever the config includes."""
    for included in source.parent.glob("*.yaml"):
        shutil.copy(included, folder)
    text = source.read_text(encoding="utf-8")
    paths = []
    for number in range(count):
        named = re.sub(r"^exp_name:.*$", f"exp_name: copy{number}", text, flags=re.MULTILINE)
        paths.append(folder / f"copy{number}.yaml")
        paths[-1].write_text(named, encoding="utf-8")
    return paths


def cpu_seconds() -> float:
    """Of all children that have ended: what a session costs whatever else runs meanwhile."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def session(folder: Path, paths: list[Path], workers: int, settings: list[str]) -> tuple[float, float, dict[str, str]]:
    """Wall and CPU seconds of one session, and the outcome of every item."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-n", str(workers)]
    command += ["-p", "xdist", "-p", "pytest_overfit.plugin"]
    command += [f"--overfit-config={path}" for path in paths] + [f"--overfit-set={text}" for text in settings]
    started, used = time.perf_counter(), cpu_seconds()
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    outcomes = {name: outcome for outcome, name in ROW.findall(done.stdout)}
    if not outcomes:
        raise SystemExit(f"no item was run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds, cpu_seconds() - used, outcomes


def main() -> int:
    """Alternates both kinds of session, so that a busy spell meets both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("example_configs/quick.yaml"))
    parser.add_argument("--configs", type=int, default=12)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--allowed", type=float, default=0.7)
    parser.add_argument("--set", action="append", default=[], help="an override for every config")
    given = parser.parse_args()
    seconds: dict[int, list[float]] = {0: [], given.workers: []}
    verdicts: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        paths = write_configs(Path(name), given.config, given.configs)
        for _ in range(given.repeats):
            for workers in seconds:
                taken, cpu, outcomes = session(Path(name), paths, workers, given.set)
                seconds[workers].append(taken)
                verdicts.append(outcomes)
                load = os.getloadavg()[0]
                print(
                    f"-n {workers}: {taken:.1f} s, {cpu:.1f} s of CPU, {len(outcomes)} items, load {load:.1f}",
                    flush=True,
                )
    ratio = statistics.median(seconds[given.workers]) / statistics.median(seconds[0])
    same = all(outcomes == verdicts[0] for outcomes in verdicts)
    print(
        f"-n {given.workers} over -n 0: {ratio:.2f} (allowed {given.allowed}); verdicts {'equal' if same else 'DIFFER'}"
    )
    return 0 if same and ratio <= given.allowed else 1


if __name__ == "__main__":
    raise SystemExit(main())
