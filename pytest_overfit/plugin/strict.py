"""``--overfit-strict``: whatever leaves an overfit test unjudged makes the session fail."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.plugin.nothing_ran import deselected
from pytest_overfit.plugin.options import LOOKING
from pytest_overfit.plugin.state import ItemState, is_overfit_test, item_state
from pytest_overfit.plugin.unchecked import fail_report, glanced_miss
from pytest_overfit.settings.ladder import STRICT

PASSING = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.TESTS_FAILED)


class Strict:
    """The hooks of a strict session.

    Tests are failed where they run, which may be a worker of pytest-xdist; whether anything was judged at all is
    decided where the session ends.
    """

    def __init__(self) -> None:
        self.tests: set[str] = set()
        self.judged = 0
        self.stopped = ""
        self.verdict: OverfitError | None = None

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, None]:
        """An overfit test that was skipped, missed as expected, or cut short has failed."""
        outcome = yield
        report = outcome.get_result()
        if not is_overfit_test(item):
            return
        state = item_state(item)
        report.overfit_test = True
        report.overfit_judged, state.judged = state.judged, 0
        unjudged = state.unjudged if report.when == "call" else []
        problem = None
        if not _is_behind_a_fault(item.name, state):  # which has failed already
            problem = _problem(report, interrupted=state.interrupted, unjudged=unjudged)
        if problem is None and report.passed and report.when == "call":
            problem = glanced_miss(item)
        state.interrupted = False
        if problem is not None:
            fail_report(item, report, problem)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, None]:
        """A test file that speaks of overfit and skips itself as a whole has failed."""
        outcome = yield
        report = outcome.get_result()
        if report.skipped and _speaks_of_overfit(collector.path):
            report.outcome = "failed"
            report.longrepr = str(
                OverfitError(
                    f"the whole file was skipped, and it speaks of overfit: {_reason(report)}",
                    where=collector.nodeid,
                    allowed=f"overfit tests that run ({STRICT})",
                    hint="make it run here, or leave the file out of this session (--ignore)",
                )
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.judged += getattr(report, "overfit_judged", 0)
        if hasattr(report, "overfit_test"):
            self.tests.add(report.nodeid)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.stopped = str(excinfo.value) or type(excinfo.value).__name__

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """The exit code is 1 at least where nothing was judged, or where not everything was run."""
        config, code = session.config, session.exitstatus
        if hasattr(config, "workerinput") or any(config.getoption(name, False) for name in LOOKING):
            return
        if self.stopped and code == pytest.ExitCode.OK:
            self.verdict = OverfitError(
                f"the session was stopped before its end: {self.stopped}",
                where=STRICT,
                allowed="a session that comes to its end",
            )
        elif not self.judged and code in PASSING:
            self.verdict = OverfitError(
                f"no criterion was judged in this session: {self._why(config)}",
                where=STRICT,
                allowed="at least one overfit run that comes to a verdict",
                hint="name a config (--overfit-config FILE), or look at the paths, -k and -m",
            )
        if self.verdict is not None and code != pytest.ExitCode.TESTS_FAILED:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.verdict is not None:
            for line in str(self.verdict).splitlines():
                terminalreporter.write_line(line, red=True)

    def _why(self, config: pytest.Config) -> str:
        if self.tests:
            tests = f"{len(self.tests)} overfit test{'' if len(self.tests) == 1 else 's'}"
            return f"{tests} ran, and no run came to a verdict"
        left_out = deselected(config)
        return "no overfit test ran" + (f", and {left_out} tests were deselected" if left_out else "")


def _is_behind_a_fault(name: str, state: ItemState) -> bool:
    """Whether an item of a config is skipped because of another that has failed."""
    if state.file is None:
        return False
    echoes = state.finding is not None and state.finding.echo_of is not None
    return echoes or state.file.faults.items.get(name, name) != name


def _problem(report: pytest.TestReport, *, interrupted: bool, unjudged: Sequence[str]) -> OverfitError | None:
    """What is wrong with the report of an overfit test in a strict session."""
    if report.skipped and hasattr(report, "wasxfail"):
        reason = report.wasxfail.removeprefix("reason: ")
        return OverfitError(
            f"it failed, as its xfail expects{': ' if reason else ''}{reason}",
            where=report.nodeid,
            allowed=f"overfit tests that pass ({STRICT})",
            hint="repair it, or say in the test what it has to miss: with pytest.raises(AssertionError)",
        )
    if report.skipped:
        return OverfitError(
            f"it was skipped: {_reason(report)}",
            where=report.nodeid,
            allowed=f"overfit tests that run ({STRICT})",
            hint="make it run here, or leave it out of this session (-k, -m, --deselect)",
        )
    if report.passed and interrupted:
        return OverfitError(
            "an overfit run was interrupted, and the test passed all the same",
            where=report.nodeid,
            allowed=f"runs that come to their end ({STRICT})",
        )
    if report.passed and unjudged:
        return OverfitError(
            f"it passed, and this was not judged: {'; '.join(unjudged)}",
            where=report.nodeid,
            allowed=f"runs of which everything is judged ({STRICT})",
            hint="mend what kept it from being judged, or switch the criterion off: defects=False",
        )
    return None


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ") or "no reason given"


def _speaks_of_overfit(path: Path) -> bool:
    try:
        return bool(re.search(r"\boverfit", path.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return False
