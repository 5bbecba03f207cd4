"""What the installed, unused plugin costs at pytest start-up: paired runs of one empty test, with and without it.

    python benchmarks/startup.py [--pairs 40]

Every pair is run back to back in alternating order; the figure is the median of the paired differences, so that a
noisy machine moves both sides. Other plugins are switched off, and the other side is given an empty plugin: ``-p``
alone makes pytest read the metadata of every installed package. On a busy machine the processor time says more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = ["-p", "no:cacheprovider", "-p", "empty_plugin"]
PLUGIN = ["-p", "no:cacheprovider", "-p", "pytest_overfit.plugin"]


def milliseconds(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Wall and processor time of one pytest process."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return 1000 * (time.perf_counter() - started), 1000 * (used.ru_utime + used.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_nothing.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
        (folder / "empty_plugin.py").write_text("", encoding="utf-8")
        for arguments in (BARE, PLUGIN):
            milliseconds(arguments, folder)  # warm the file cache and the bytecode
        bare: list[tuple[float, float]] = []
        plugin: list[tuple[float, float]] = []
        for pair in range(pairs):
            order = [(BARE, bare), (PLUGIN, plugin)]
            for arguments, times in order if pair % 2 else reversed(order):
                times.append(milliseconds(arguments, folder))
    print(f"milliseconds, median of {pairs} pairs (fastest); the difference is promised to be at most 5")
    for column, kind in enumerate(("wall time", "processor time")):
        without, with_it = ([times[column] for times in side] for side in (bare, plugin))
        paired = statistics.median(b - a for a, b in zip(without, with_it, strict=True))
        print(
            f"{kind:<15} bare {statistics.median(without):.1f} ({min(without):.1f}), with the plugin "
            f"{statistics.median(with_it):.1f} ({min(with_it):.1f}), "
            f"paired difference {paired:+.2f} ({min(with_it) - min(without):+.2f})"
        )


if __name__ == "__main__":
    main()
