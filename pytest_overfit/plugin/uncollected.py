"""What ends a session while it collects, for its CI service: paths that are not there, tests that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest


class Uncollected:
    """Tells once why no test was run.

    Args:
        tell: told of it.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.broken: dict[str, str] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_collection(self) -> Generator[None, Any, None]:
        """A path that is not there is an error of usage."""
        outcome = yield
        if outcome.excinfo is not None and isinstance(outcome.excinfo[1], pytest.UsageError):
            self.tell("\n".join(map(str, outcome.excinfo[1].args)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            text = [line.removeprefix("E ").strip() for line in report.longreprtext.splitlines() if line.strip()]
            self.broken[report.nodeid] = text[-1] if text else "cannot be collected"

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self.broken and exitstatus == pytest.ExitCode.INTERRUPTED:
            self.tell("\n".join(f"{nodeid}: {why}" for nodeid, why in self.broken.items()))
