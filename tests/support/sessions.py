"""Sessions of pytest inside a test: what they need from the process around them, and what came out of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _pytest.pytester import SysModulesSnapshot

from tests.support.warm import warm_python

HANGS = 600.0  # seconds: limits of tests are against hanging alone, a machine may be twenty times slower than another
REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ("config", "pair", "loader")
RUN = "run"
NOT_JUDGED = "not judged: "
CRITERIA = (
    "supervised",
    "constant_batch",
    "finite",
    "gradients",
    "objective",
    "camera",
    "depth",
    "monotonic",
    "train_val",
    "prediction",
    "defects",
)
ITEMS = (*STAGES, RUN, *CRITERIA)
# pytest-randomly changes every session; the others cost each of some hundred sessions a second of imports.
OTHER_PLUGINS = ("randomly", "hypothesispytest", "hydra_pytest", "anyio", "rerunfailures")
WITHOUT_THEM = " ".join([*(f"-p no:{name}" for name in OTHER_PLUGINS), "-o overfit_keep=false"])


def keep_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session inside a test forgets the modules that it imported; torch does not survive a second import.

    All modules are kept but those of the session's own test files. A session in a process of its own has torch already.
    """

    def keep(self: pytest.Pytester) -> SysModulesSnapshot:
        return SysModulesSnapshot(preserve=lambda name: not name.startswith(("test_", "conftest")))

    monkeypatch.setattr(pytest.Pytester, "_Pytester__take_sys_modules_snapshot", keep)
    monkeypatch.setattr(pytest.Pytester, "_getpytestargs", lambda self: (*warm_python(), "-m", "pytest"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def own_plugins_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugins that are installed for other tests stay out of sessions that do not name them.

    After the pytester, which forgets PYTEST_ADDOPTS, and so after ``keep_modules``, which must come before it.
    """
    if "pytester" in request.fixturenames:
        request.getfixturevalue("pytester")
    monkeypatch.setenv("PYTEST_ADDOPTS", WITHOUT_THEM)


def reports_of(result: pytest.RunResult) -> dict[str, Any]:
    """Item name -> its report, of the config items of an in-process session; of two with one name the later one."""
    reports = result.reprec.getreports("pytest_runtest_logreport")  # type: ignore[attr-defined]
    wanted = [report for report in reports if report.when == "call" or report.outcome != "passed"]
    return {report.nodeid.rpartition("::")[2]: report for report in wanted}


def outcomes(result: pytest.RunResult) -> dict[str, str]:
    """Item name -> passed, failed or skipped."""
    return {name: report.outcome for name, report in reports_of(result).items()}


def failed_items(result: pytest.RunResult) -> list[str]:
    """Names of the items that failed, in the order in which they ran."""
    return [name for name, outcome in outcomes(result).items() if outcome == "failed"]


def expect_red(result: pytest.RunResult, red: dict[str, str], *, green: tuple[str, ...] = ()) -> None:
    """The session failed, exactly the items ``green`` passed, and each item of ``red`` says the words given.

    Every other item is red too, with any words. An item that is not judged is skipped, not failed.
    """
    reports = reports_of(result)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    passed = {name for name, report in reports.items() if report.passed}
    assert passed == set(green), {name: reports[name].longreprtext for name in reports}
    skipped = {name for name, words in red.items() if words.startswith((NOT_JUDGED, "not asked: "))}
    assert {name for name, report in reports.items() if report.skipped} == skipped
    assert {name for name, report in reports.items() if report.failed} == set(ITEMS) - set(green) - skipped
    for name, words in red.items():
        assert words in " ".join(reports[name].longreprtext.split())


def not_judged(by: str, names: tuple[str, ...] = (RUN, *CRITERIA)) -> dict[str, str]:
    """What every item says that is skipped because another has failed."""
    return dict.fromkeys(names, f"{NOT_JUDGED}::{by} failed (")


def echoes(of: str, *judged: str) -> dict[str, str]:
    """What every criterion says that a run did not come to, but for those that were ``judged``."""
    return dict.fromkeys([name for name in CRITERIA if name not in (of, *judged)], f"{NOT_JUDGED}see {of} (")


def start_pytest(
    *args: str, folder: Path, tty: int | None = None, warm: bool = True, **environment: str
) -> subprocess.Popen[str]:
    """``python -m pytest`` in a process group of its own, which has imported torch already where it is ``warm``.

    With ``tty`` (a file descriptor) everything goes there, else stdout and stderr are one pipe.
    """
    output = subprocess.PIPE if tty is None else tty
    return subprocess.Popen(
        [*(warm_python() if warm else (sys.executable,)), "-m", "pytest", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment},
        stdout=output,
        stderr=subprocess.STDOUT if tty is None else tty,
        stdin=subprocess.DEVNULL if tty is None else tty,
        text=True,
        start_new_session=True,
        # A session in the background of a shell has SIGINT ignored, and its children would inherit that.
        preexec_fn=None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value), as TensorBoard's own reader gives them."""
    from tensorboard.backend.event_processing import event_accumulator

    reader: Any = event_accumulator
    accumulator = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def run_folders(log_dir: Path) -> dict[str, int]:
    """Experiment -> how many runs it has in a log folder."""
    return {folder.name: len(list(folder.iterdir())) for folder in log_dir.iterdir() if folder.is_dir()}
