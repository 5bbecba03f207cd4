"""The advice of the guide as evidence: eight ways in which the two-view run fails, and what each is blamed on.

    python benchmarks/advice.py [--config example_configs/quick.yaml] [--only NAME]

Each case is one pytest process over the reference model and a rendered pair. Prints the first cause with its evidence;
exits with 1 if one is not what it should be.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCHEDULE = "optim.options.lr.0.scheduler.schedulers"
RATES = {"0.start_value": 6e-5, "0.end_value": 2e-3, "1.start_value": 2e-3, "1.end_value": 6e-5, "2.value": 6e-5}


@dataclass(frozen=True)
class Failure:
    """One way to fail: overrides, a damage to the pair on disk where there is one, and the causes that are right."""

    name: str
    causes: tuple[str, ...]
    settings: tuple[str, ...] = ()
    damage: Callable[[Path], None] | None = None


def rates(factor: float) -> tuple[str, ...]:
    """The whole schedule times a factor."""
    return tuple(f"{SCHEDULE}.{key}={value * factor:g}" for key, value in RATES.items())


def depth_in_millimetres(folder: Path) -> None:
    """The second view's depth becomes a thousand times as large."""
    from pytest_overfit.two_view.pair.exr_depth import read_exr, write_exr

    path = sorted(folder.glob("*/*.exr"))[1]
    write_exr(path, np.asarray(read_exr(path) * 1000, np.float32))


FAILURES = (
    Failure("does not fall: learning rate 10,000 times too low", ("lr-low",), rates(1e-4)),
    Failure("falls slowly: learning rate 10 times too low", ("lr-low",), rates(0.1)),
    Failure("oscillates: learning rate 10 times too high", ("lr-high",), rates(10)),
    Failure("explodes: learning rate 100 times too high", ("lr-high",), rates(100)),
    Failure("frozen modules", ("frozen",), ("optim.frozen_module_names=['*aggregator*', '*camera_head*']",)),
    Failure(
        "bad depth: one view in millimetres", ("units", "scale", "target-scale"),
        ("data.train.dataset.dataset_configs.0.max_depth=1e9",), depth_in_millimetres,
    ),
    Failure("missing sky mask", ("sky",), ("data.train.dataset.dataset_configs.0.remove_sky=false",)),
    Failure("loss weights: the camera counts for nothing", ("term-weight", "term-missing"), ("loss.camera.weight=0",)),
    Failure("loss weights: the camera drowns the depth", ("term-weight",), ("loss.camera.weight=5e5",)),
)  # fmt: skip


class Collector:
    """Keeps the causes of a session."""

    def __init__(self) -> None:
        self.causes: list[str] = []
        self.headline = ""
        self.missed: list[str] = []
        self.early: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row: Any = getattr(report, "overfit", None)
        if row is None:
            return
        if not row["finding"]["passed"]:
            self.missed.append(row["finding"]["name"])
            if "(cause: " in (row["finding"]["hint"] or ""):  # named before anything is trained
                cause = row["finding"]["hint"].partition("(cause: ")[2].partition(",")[0]
                self.early = [
                    f"why: {cause} (proven): {row['finding']['observed']}",
                    f"  change: {row['finding']['hint']}",
                ]
        if row["run"]:
            self.causes, self.headline = list(row["run"]["causes"]), row["run"]["headlines"][0]


def run_child(arguments: list[str]) -> None:
    """The child process: runs pytest and prints what it said as the last line."""
    collector = Collector()
    pytest.main(["-q", "-p", "no:cacheprovider", *arguments], plugins=[collector])
    print(
        json.dumps(
            {
                "causes": [*collector.early, *collector.causes],
                "headline": collector.headline,
                "missed": collector.missed,
            }
        )
    )


def run(failure: Failure, config: Path, folder: Path) -> dict[str, Any]:
    """One failure in a process of its own."""
    settings = list(failure.settings)
    if failure.damage is not None:
        from pytest_overfit.two_view.pair.create import create_pair  # not before pytest: it rewrites what it imports
        from pytest_overfit.two_view.pair.synthetic import render_source

        source = render_source(folder / "source", width=320, height=240)
        pair = create_pair(source.source_root, source.source_seg_root, source.source_npz, folder / "pair").root
        failure.damage(pair)
        entry = "data.train.dataset.dataset_configs.0"
        settings += [
            "overfit.pair.source=dataset", f"+{entry}.ROOT={pair}", f"+{entry}.segmentation_root={pair}/seg",
        ]  # fmt: skip
    arguments = ["--overfit-config", str(config.absolute()), "--overfit-log-dir", str(folder / "logs")]
    for setting in settings:
        arguments += ["--overfit-set", setting]
    child = subprocess.run(
        [sys.executable, __file__, "--child", *arguments], capture_output=True, text=True, cwd=folder
    )
    try:
        return dict(json.loads(child.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        return {"causes": [], "headline": child.stdout[-2000:] + child.stderr[-2000:], "missed": []}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("example_configs/quick.yaml"))
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    wrong = 0
    for failure in FAILURES:
        if options.only not in failure.name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            seen = run(failure, options.config, Path(folder))
        first = (seen["causes"] or ["none"])[0].removeprefix("why: ").partition(" ")[0]
        right = first in failure.causes
        wrong += not right
        print(f"{'ok   ' if right else 'WRONG'} {failure.name}: {first}; missed {', '.join(seen['missed'])}")
        for line in (*seen["causes"][: 3 if right else None], seen["headline"]):
            print(f"        {line}")
        sys.stdout.flush()
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2:])
    else:
        sys.exit(main())
