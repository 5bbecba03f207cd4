"""Workers beyond the cores of a machine train in turn."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_overfit.run.cores import available_cores, core_of_its_own

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process cannot be kept on one core")

CHILD = """
import os, sys, time
from pathlib import Path
from pytest_overfit.run.cores import core_of_its_own
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
name, workers, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
Path(name + ".ready").touch()
with core_of_its_own(Path("locks"), workers=workers):
    start = time.monotonic()
    Path(name + ".in").touch()
    time.sleep(seconds)
    print(start, time.monotonic())
"""


def child(folder: Path, name: str, *, workers: int, seconds: float) -> subprocess.Popen[str]:
    """A process on one core that stays in the block for some seconds."""
    command = [sys.executable, "-c", CHILD, name, str(workers), str(seconds)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def spans(children: list[subprocess.Popen[str]]) -> list[tuple[float, float]]:
    """When each was in the block, the first one first."""
    found = []
    for process in children:
        out, _ = process.communicate()
        assert process.returncode == 0
        start, end = map(float, out.split())
        found.append((start, end))
    return sorted(found)


def test_two_workers_on_one_core_go_one_after_the_other(tmp_path: Path) -> None:
    """The second begins when the first has ended."""
    first, second = spans([child(tmp_path, name, workers=2, seconds=0.5) for name in "ab"])
    assert first[1] <= second[0]


def test_workers_with_a_core_each_do_not_wait(tmp_path: Path) -> None:
    """One worker on one core, twice: nobody asks for the lock."""
    held = child(tmp_path, "a", workers=1, seconds=30)
    try:
        wait_for(tmp_path / "a.in")
        assert len(spans([child(tmp_path, "b", workers=1, seconds=0)])) == 1
    finally:
        held.kill()
        held.communicate()
    assert not (tmp_path / "locks").exists()


def test_a_killed_worker_gives_its_core_up(tmp_path: Path) -> None:
    """The one that waits goes on at once."""
    held = child(tmp_path, "a", workers=2, seconds=3600)
    wait_for(tmp_path / "a.in")
    waiting = child(tmp_path, "b", workers=2, seconds=0)
    wait_for(tmp_path / "b.ready")
    assert not (tmp_path / "b.in").exists()
    held.kill()
    held.communicate()
    assert len(spans([waiting])) == 1


def test_more_threads_take_more_cores(tmp_path: Path) -> None:
    """A run as wide as the machine leaves no core for a second one; a failure gives it back."""
    wide = available_cores()
    with pytest.raises(KeyError), core_of_its_own(tmp_path / "locks", workers=2, threads=wide):
        raise KeyError
    with core_of_its_own(tmp_path / "locks", workers=2, threads=wide):
        assert [path.name for path in (tmp_path / "locks").iterdir()] == ["core0.lock"]
