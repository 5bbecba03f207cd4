"""Ctrl-C: what pytest keeps of it."""

from __future__ import annotations

import gc

import pytest


def shorten_interruptions(config: pytest.Config) -> None:
    """Asked for before other plugins are configured, so that they clean up before it does."""
    if not config.getoption("fulltrace", False):  # the terminal plugin's
        short = ShortInterruption()
        config.pluginmanager.register(short, "overfit_interruption")
        config.add_cleanup(short.unfreeze)


class ShortInterruption:
    """Leaves an interruption the frame that it came in, which is what pytest shows.

    Without ``--full-trace`` pytest writes down every frame with its arguments, models and tensors too, and throws that
    away: on a busy machine for longer than all that a run has left to do. And it collects garbage five times as it
    ends, over all that torch has: none of it is looked at.
    """

    def __init__(self) -> None:
        self.came = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        from pytest_overfit.run.stack_lines import is_library

        self.came = True
        gc.freeze()
        seen = [place for place, entry in enumerate(excinfo.traceback) if not entry.ishidden(excinfo)]
        # The user's own, where there is one: pytest reads the whole file of it, and those of torch are long.
        seen = [place for place in seen if not is_library(str(excinfo.traceback[place].path))] or seen
        excinfo.traceback = excinfo.traceback[seen[-1] if seen else 0 :]

    def unfreeze(self) -> None:
        """After whatever was to be cleaned up since pytest was configured."""
        if self.came:
            gc.unfreeze()
