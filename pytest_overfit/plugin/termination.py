"""SIGTERM, as a CI service or a time limit sends it: the session ends as with Ctrl-C, and says what ended it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from pytest_overfit.plugin.state import SessionState

ONE_SIGNAL = 0.5  # seconds: timeout(1) signals its child, and then the group that the child is in


class EndedBySignal(KeyboardInterrupt):
    """What Ctrl-C does, done by another: no ``except Exception`` of user code keeps it."""


@contextlib.contextmanager
def ended_by_sigterm(session: SessionState) -> Iterator[None]:
    """A block in which SIGTERM ends the session as Ctrl-C does, with all that it writes; a second ends the process.

    Whoever handles the signal already goes on doing so: the user, a block around this one, or the guard of ranks.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or session.ranks is not None or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if session.ended_by and time.monotonic() - session.ended_at < ONE_SIGNAL:
            return
        if session.ended_by or os.getpid() != owner:  # a worker of a loader has this handler too, and is ended as ever
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        session.ended_by, session.ended_at = signal.Signals(number).name, time.monotonic()
        raise EndedBySignal(session.ended_by)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def told_end(session: SessionState, steps: int | None = None, planned: int = 0) -> str | None:
    """What a record says of the signal that ended its run; None where none has."""
    if not session.ended_by:
        return None
    return f"ended by {session.ended_by}" + ("" if steps is None else f" at step {steps} of {planned}")
