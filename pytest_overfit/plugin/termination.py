"""SIGTERM, as a CI service or a time limit sends it: the session ends as with Ctrl-C, and says what ended it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from types import FrameType
from typing import Any

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
    came = partial(_came, session, os.getpid())
    signal.signal(signal.SIGTERM, came)
    if session.is_worker and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, came)
    try:
        yield
    finally:
        for number, before in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            if signal.getsignal(number) is came:
                signal.signal(number, before)


def end_begins(session: SessionState) -> None:
    """From here on the session writes its end: a signal raises nothing into that, and stops all waiting for workers."""
    session.ending = True
    came = signal.getsignal(signal.SIGTERM)
    ours = isinstance(came, partial) and came.func is _came
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, came)


def signal_workers(nodes: Iterable[Any], name: str) -> None:
    """Sends a signal to the workers of pytest-xdist that are processes of this machine, and still there."""
    for node in nodes:
        process = getattr(getattr(node.gateway, "_io", None), "popen", None)
        if process is not None and node.gateway.spec.popen and process.poll() is None:
            process.send_signal(getattr(signal, name))


def _came(session: SessionState, owner: int, number: int, frame: FrameType | None) -> None:
    """A signal: the first ends the session, one while it is ending hurries it, and the next ends the process."""
    first = not session.ended_at
    if os.getpid() == owner and not first and time.monotonic() - session.ended_at < ONE_SIGNAL:
        return
    if os.getpid() == owner and session.is_worker and not first:  # its controller ends it where it does not end
        return
    if os.getpid() == owner and session.ending and session.hurry is not None:
        session.ended_at = time.monotonic()
        hurry, session.hurry = session.hurry, None
        hurry()
        return
    if not first or os.getpid() != owner:  # a worker of a loader has this handler too, and is ended as ever
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    session.ended_by, session.ended_at = _name(number), time.monotonic()
    raise EndedBySignal(session.ended_by) if session.ended_by else KeyboardInterrupt


def _name(number: int) -> str:
    """What is told of a signal; Ctrl-C has a name of its own."""
    return "" if number == signal.SIGINT else signal.Signals(number).name


def told_end(session: SessionState, steps: int | None = None, planned: int = 0) -> str | None:
    """What a record says of the signal that ended its run; None where none has."""
    if not session.ended_by:
        return None
    return f"ended by {session.ended_by}" + ("" if steps is None else f" at step {steps} of {planned}")
