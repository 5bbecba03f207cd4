"""A session without any overfit run, as the page of its job and its report tell it: nothing is proven."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_overfit.plugin.options import LOOKING
from pytest_overfit.plugin.state import SessionState
from pytest_overfit.plugin.termination import told_end
from pytest_overfit.plugin.wanted_records import Wanted

NO_RUN = "No overfit run was made in this session"
FAILS = "It fails for that"
NO_TESTS = "pytest ends with exit code 5 where no test ran"


def nothing_ran(session: pytest.Session, state: SessionState, wanted: Wanted) -> tuple[str, ...]:
    """That no run was made, and whether the session fails for it; empty where nobody asked for any.

    A session of other tests, whose job merely has the plugin, asks for none.
    """
    config: Any = session.config
    strict = config.pluginmanager.getplugin("overfit_strict")
    asked = strict is not None or state.options.configs or wanted.report or wanted.save or wanted.compare
    if not asked or any(config.getoption(name, False) for name in LOOKING):
        return ()
    left_out = deselected(config)
    first = NO_RUN
    first += f": {left_out} test{' was' if left_out == 1 else 's were'} deselected." if left_out else "."
    if ended := told_end(state):
        return (first, f"{FAILS}: {ended}.")
    if strict is not None and strict.verdict is not None:
        return (first, f"{FAILS}: {strict.verdict.where}.")
    if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        return (first, f"{FAILS}: {NO_TESTS}.")
    if session.exitstatus == pytest.ExitCode.OK:
        return (first, "It passes, and proves nothing: --overfit-strict makes it fail.")
    return (first, "It has failed for another reason, and proves nothing.")


def deselected(config: pytest.Config) -> int:
    """How many tests -k, -m and --deselect have left out."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    return len(reporter.stats.get("deselected", ())) if reporter else 0
