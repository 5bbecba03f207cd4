"""The name of a session, which tells whether it still goes on."""

from __future__ import annotations

import os


def session_id(process: int) -> str:
    """A name that no other session has, with the machine and the process whose end is that of the session.

    Example:
        >>> session_id(4711)                                                              # doctest: +SKIP
        'runner-3/4711/9f0c1d2e8a7b6c5d'
    """
    return f"{_machine()}/{process}/{os.urandom(8).hex()}"


def is_running(session: str, asking: str) -> bool:
    """Whether another session goes on; of one of another machine nobody knows, and no process has two at a time."""
    machine, process, _ = [*session.split("/"), "", "", ""][:3]
    if machine != _machine() or not process.isdecimal() or process == [*asking.split("/"), "", ""][1]:
        return False
    if os.name != "posix":  # where signal 0 is none that only asks
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def _machine() -> str:
    return os.uname().nodename.replace("/", "-") if hasattr(os, "uname") else ""
