"""The core on an accelerator, a simulated one: it is registered for good, and so in processes of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.configs import write_tiny
from tests.support.outside import python
from tests.support.sessions import REPOSITORY

ACCELERATED = Path(__file__).with_name("accelerated.py")
CONFTEST = """
from tests.support import simulated
simulated.register()
"""


def test_the_core_runs_on_an_accelerator() -> None:
    """As ``accelerated.py`` has it."""
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", f"python_files={ACCELERATED.name}")
    told = python(REPOSITORY, "", *command, str(ACCELERATED))
    assert re.fullmatch(r"\d+ passed in .*", told.splitlines()[-1]), told


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], pytest.RunResult]:
    """The tiny config on a device, with its pictures."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # of what registers the device
    pytester.makeconftest(CONFTEST)
    write_tiny(pytester.path)
    short = ("logging.log_visuals=true", "overfit.budget.max_steps=30", "overfit.diagnose=false")
    said = [f"--overfit-set={each}" for each in short]
    asked = "config or pair or loader or supervised or constant or finite or gradients"
    options = ("--overfit-config", "tiny.yaml", "--overfit-log-dir=board", "-k", asked, *said)
    return lambda device: pytester.runpytest_subprocess(*options, f"--overfit-device={device}")


def test_its_name_is_a_device_of_the_command_line(
    pytester: pytest.Pytester, session: Callable[[str], pytest.RunResult]
) -> None:
    """A pair is trained there, looked at and shown."""
    result = session("sim")
    result.assert_outcomes(passed=7, deselected=7)
    result.stdout.fnmatch_lines(["30 of 30 steps in *; sim, seed 0, *"])
    assert any(b"depth" in path.read_bytes() for path in pytester.path.rglob("*tfevents*"))


def test_a_slip_in_its_name_says_what_there_is(session: Callable[[str], pytest.RunResult]) -> None:
    """Before anything is trained."""
    result = session("smi")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["config: device 'smi' is not a device, allowed auto, cpu, cuda*or a backend that*"])
