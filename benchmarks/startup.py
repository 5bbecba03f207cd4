"""What the installed, unused plugin costs at pytest start-up: paired runs of one empty test, with and without it.

    python benchmarks/startup.py [--pairs 40]

Every pair is run back to back in alternating order; the figure is the median of the paired differences, so that a
noisy machine moves both sides. Other plugins are switched off on both sides.
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

BARE = ["-p", "no:cacheprovider"]
PLUGIN = [*BARE, "-p", "pytest_overfit.plugin"]


def seconds(arguments: list[str], folder: Path) -> float:
    """Wall time of one pytest process."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_nothing.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
        for arguments in (BARE, PLUGIN):
            seconds(arguments, folder)  # warm the file cache and the bytecode
        bare, plugin = [], []
        for pair in range(pairs):
            order = [(BARE, bare), (PLUGIN, plugin)]
            for arguments, times in order if pair % 2 else reversed(order):
                times.append(seconds(arguments, folder))
    differences = [with_it - without for with_it, without in zip(plugin, bare, strict=True)]
    print(f"bare pytest       median {1000 * statistics.median(bare):7.1f} ms   fastest {1000 * min(bare):7.1f} ms")
    print(f"with the plugin   median {1000 * statistics.median(plugin):7.1f} ms   fastest {1000 * min(plugin):7.1f} ms")
    print(
        f"paired difference median {1000 * statistics.median(differences):+7.2f} ms over {pairs} pairs (promised: 5 ms)"
    )
    print(f"fastest against fastest  {1000 * (min(plugin) - min(bare)):+7.2f} ms")


if __name__ == "__main__":
    main()
