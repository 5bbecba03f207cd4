"""A source of ten million pairs of a million images: what cutting, checking and looking at one pair of it takes.

    python benchmarks/large_source.py [--pairs 10000000] [--images 1000000] [--packed]

Promised are at most 10 seconds and 1 GiB of memory for a process that cuts the last pair. ``--packed`` compresses the
index, which then has to be unpacked up to the row that is asked for.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pytest_overfit.two_view.pair.index import PAIR_DTYPE
from pytest_overfit.two_view.pair.synthetic import render_source


def grow(split_file: Path, pairs: int, images: int, packed: bool) -> None:
    """Writes the index anew, so that its last pair is the one that lies on the disk."""
    with np.load(split_file) as held:
        tags, scene = held["images"].tolist(), str(held["images_scene_name"][0])
    names = np.array([f"{number:07d}_{number % 977:03d}.jpeg" for number in range(images)])
    names[-2:] = tags
    rows = np.zeros(pairs, PAIR_DTYPE)
    rows["im1_id"], rows["im2_id"], rows["score"] = np.arange(pairs) % (images - 1), images - 1, 0.5
    rows["im1_id"][-1] = images - 2
    write = np.savez_compressed if packed else np.savez
    write(split_file, scenes=np.array([scene]), images=names, pairs=rows, images_scene_name=np.full(images, scene))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--packed", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = render_source(Path(folder, "source"), seed=0)
        shape = (source.source_npz, options.pairs, options.images, options.packed)
        writer = multiprocessing.get_context("spawn").Process(target=grow, args=shape)  # whose memory is its own
        writer.start()
        writer.join()
        size = source.source_npz.stat().st_size / 2**20
        print(f"{options.pairs} pairs of {options.images} images, {size:.0f} MiB, load {os.getloadavg()[0]:.1f}")
        command = [sys.executable, "-m", "pytest_overfit.cli", "pair"]
        cut = ["create", "--source-root", str(source.source_root), "--source-npz", str(source.source_npz)]
        cut += ["--pair-index", str(options.pairs - 1), "--output-root", f"{folder}/cut"]
        worst = 0.0
        for name, asked in (("create", cut), ("check", ["check", f"{folder}/cut"])):
            started = time.perf_counter()
            done = subprocess.run([*command, *asked], capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - started
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            print(f"pair {name:7} {seconds:5.1f} s   {peak:5.2f} GiB at most   exit {done.returncode}")
            if done.returncode:
                print(done.stdout, done.stderr)
                return 1
            worst = max(worst, seconds / 10, peak)
    return 0 if worst <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
