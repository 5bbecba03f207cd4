"""What a watchdog asks of its process: a free signal, children that were born meanwhile, a debugger that looks on."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Collection
from typing import Any

SIGNALS = ("SIGRTMAX", "SIGUSR2", "SIGUSR1")  # the first that nobody uses; SIGALRM is pytest-timeout's
DEBUGGERS = frozenset({"bdb", "pydevd", "pydevd_frame_evaluator"})


def free_signal() -> int | None:
    """A signal that nobody uses; none where signals cannot be had: off the main thread, on Windows."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_kill"):
        return None
    found = [int(getattr(signal, name)) for name in SIGNALS if hasattr(signal, name)]
    return next((number for number in found if signal.getsignal(number) == signal.SIG_DFL), None)


def born_since(known: Collection[int | None]) -> list[Any]:
    """The child processes beside those that are known by their ids."""
    return [child for child in multiprocessing.active_children() if child.pid not in known]


def forked(child: Any) -> bool:
    """Whether a child process began as a copy of this one, handlers of signals included."""
    return type(child).__name__ in ("ForkProcess", "Process") and multiprocessing.get_start_method() == "fork"


def is_debugged() -> bool:
    """Whether somebody looks at the main thread in a debugger: he may take his time."""
    trace = sys.gettrace()
    module = getattr(trace, "__module__", None) or getattr(type(trace), "__module__", "")
    return str(module).partition(".")[0] in DEBUGGERS
