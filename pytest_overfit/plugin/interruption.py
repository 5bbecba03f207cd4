"""Ctrl-C: what pytest keeps of it."""

from __future__ import annotations

import pytest


def pytest_sessionstart(session: pytest.Session) -> None:
    if not session.config.getoption("fulltrace", False):  # the terminal plugin's
        session.config.pluginmanager.register(ShortInterruption(), "overfit_interruption")


class ShortInterruption:
    """Leaves an interruption the frame that it came in, which is what pytest shows.

    Without ``--full-trace`` pytest writes down every frame with its arguments, models and tensors too, and throws that
    away: on a busy machine for longer than all that a run has left to do.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        seen = [place for place, entry in enumerate(excinfo.traceback) if not entry.ishidden(excinfo)]
        excinfo.traceback = excinfo.traceback[seen[-1] if seen else 0 :]
