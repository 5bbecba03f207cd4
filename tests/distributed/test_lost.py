"""A rank that dies, hangs or fails alone: the others say which, in time, and nothing is left of the launch."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.distributed.support import SMALL, TIMEOUT, torchrun, wait_for
from tests.support.sessions import REPOSITORY

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")

ENDLESS = """
from pytest_overfit.run.ranks.guard import Guard


def beat(self):
    told(self)
    if self.me.doing.startswith("step"):
        (HERE / f"trains{RANK}").write_text("yes")


told, Guard._beat = Guard._beat, beat


def test_endless(overfit):
    net, batch = made()
    calls = 0

    def loss(model, batch):
        nonlocal calls
        calls += 1
        AT_FORTY
        return F.mse_loss(model(batch[0]), batch[1]) + 1

    overfit(net, batch, loss, optimizer=adam, max_steps=10**6, objective=1e-9)
"""


def at_forty(statement: str) -> str:
    """The test file, with a statement for the loss of rank 1 in the middle of its training."""
    return SMALL + ENDLESS.replace("AT_FORTY", f"if calls > 40 and RANK == '1':\n            {statement}")


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_is_killed_is_named(lost: int, tmp_path: Path) -> None:
    """SIGKILL: the other one says so, red, and needs no timeout for it; no process and no port is left."""
    (tmp_path / "test_it.py").write_text(SMALL + ENDLESS.replace("AT_FORTY", "pass"))
    with torchrun(tmp_path, TIMEOUT) as launch:
        wait_for(tmp_path / f"trains{lost}")
        os.kill(int((tmp_path / f"rank{lost}.pid").read_text()), signal.SIGKILL)
        output = launch.ends_red(tmp_path)
        head = "torchrun: rank 1 of 2" if lost == 1 else "overfit on rank 1: rank 0"
        assert re.search(rf"{head} died: no sign of life for .* last seen in step \d+", output), output
        assert output.count("1 failed") == lost
        assert launch.is_gone()


def test_a_rank_that_hangs_is_named_with_the_line_it_hangs_in(tmp_path: Path) -> None:
    """It sleeps in its loss: both ranks end with 1, and the report says where it sleeps."""
    (tmp_path / "test_it.py").write_text(at_forty("import time; time.sleep(10**6)"))
    with torchrun(tmp_path, "--overfit-set=overfit.distributed.timeout=30") as launch:
        wait_for(tmp_path / "trains1")
        output = launch.ends_red(tmp_path)
        assert re.search(r"torchrun: rank 1 of 2 hangs: .* in step \d+, loss at test_it.py:\d+", output), output
        assert "overfit.distributed.timeout" in output
        assert launch.is_gone()


def test_a_rank_that_hangs_is_lost_once_the_run_is_over_its_seconds(tmp_path: Path) -> None:
    """``max_seconds`` counts, whatever the timeout is: both ranks end with 1, and the report says where it sleeps."""
    (tmp_path / "test_it.py").write_text(at_forty("import time; time.sleep(10**6)"))
    with torchrun(tmp_path, "--overfit-max-seconds=20") as launch:
        wait_for(tmp_path / "trains1")
        output = launch.ends_red(tmp_path)
    assert re.search(r"rank 1 of 2 hangs: .*, loss at test_it.py:\d+; the run had 20 s \(max_seconds\)", output), output


def test_an_error_of_one_rank_ends_both(tmp_path: Path) -> None:
    """The first rank, which reports, says what the other one raised."""
    (tmp_path / "test_it.py").write_text(at_forty("raise ValueError('only here')"))
    with torchrun(tmp_path, TIMEOUT) as launch:
        output = launch.ends_red(tmp_path)
    assert "torchrun: rank 1 of 2 failed: ValueError: only here" in output


@pytest.mark.parametrize("wrong", ["01", "1"])
def test_a_wrong_config_is_told_once(wrong: str, tmp_path: Path) -> None:
    """By the first rank where all read the same; by another one where it is wrong on that one alone."""
    (tmp_path / "conftest.py").write_text(
        "import os, pytest\n\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_configure(config):\n"
        f"    if os.environ['RANK'] in {wrong!r}:\n"
        "        config.option.overfit_set = ['overfit.thread=1']\n"
    )
    (tmp_path / "test_it.py").write_text(SMALL + ENDLESS.replace("AT_FORTY", "pass"))
    config = REPOSITORY / "example_configs" / "quick.yaml"
    with torchrun(tmp_path, TIMEOUT, f"--overfit-config={config}", "test_it.py") as launch:
        output = launch.ends_red(tmp_path)
    assert output.count("did you mean threads?") == 1
