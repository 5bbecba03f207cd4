"""Opens files that anybody may have written: regular ones alone, and bounded before the first byte is read."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pytest_overfit.errors import OverfitError

_KINDS = (
    (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a named pipe (FIFO)"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket"),
)  # fmt: skip
_ERRORS = threading.Lock()  # the file behind descriptor 2 is one for all threads


def open_regular(
    path: Path | str, *, most: int | None = None, error: type[OverfitError] = OverfitError, hint: str | None = None
) -> IO[bytes]:
    """A regular file, open for reading: never a pipe that nobody writes to, nor a device without an end.

    Args:
        most: bytes that it may have; None: any number.
        error: the kind to raise.
        hint: what to do where the file is missing or cannot be read.

    Raises:
        OverfitError: of kind ``error``: missing, not a regular file, larger than ``most``, or not readable.
    """
    try:
        _refuse_odd(Path(path).stat(), path, error)
        # Between the two looks it may have become a pipe: without O_NONBLOCK, opening one waits for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            found = os.fstat(handle)
            _refuse_odd(found, path, error)
            if most is not None and found.st_size > most:
                raise error(f"{found.st_size} bytes", where=path, allowed=f"at most {most} bytes")
            return os.fdopen(handle, "rb")
        except BaseException:
            os.close(handle)
            raise
    except FileNotFoundError:
        raise error("no such file", where=path, hint=hint) from None
    except (OSError, ValueError) as problem:  # a zero byte in the name is the latter
        told = getattr(problem, "strerror", None) or problem
        raise error(f"cannot be read ({told})", where=path, allowed="a readable file", hint=hint) from None


def read_regular(
    path: Path | str, *, most: int, error: type[OverfitError] = OverfitError, hint: str | None = None
) -> bytes:
    """The bytes of a regular file, see ``open_regular``; of one that grows meanwhile, an error."""
    try:
        with open_regular(path, most=most, error=error, hint=hint) as file:
            data = file.read(most + 1)
    except OSError as problem:
        told = problem.strerror or problem
        raise error(f"cannot be read ({told})", where=path, allowed="a readable file", hint=hint) from None
    if len(data) > most:
        raise error(f"more than {most} bytes", where=path, allowed=f"at most {most} bytes")
    return data


def open_to_append(path: Path) -> IO[str]:
    """A file to add lines to, in UTF-8: a regular one, a device such as a terminal, or a pipe that somebody reads.

    Raises:
        OSError: it cannot be written; a pipe that nobody reads would make the process wait for ever.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags, 0o644)
    if hasattr(os, "set_blocking"):
        os.set_blocking(handle, True)
    return os.fdopen(handle, "a", encoding="utf-8")


def expect_name(path: Path) -> None:
    """Raises OSError or ValueError where no file can be called so; whether there is one does not matter."""
    try:
        path.lstat()
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
            raise


def _refuse_odd(found: os.stat_result, path: Path | str, error: type[OverfitError]) -> None:
    if kind := _odd(found):
        raise error(kind, where=path, allowed="a regular file")


def odd_kind(path: Path) -> str | None:
    """What is at a path, where that is no regular file; None where it is one, or nothing is there.

    Example:
        >>> odd_kind(Path.cwd())
        'a directory'
    """
    try:
        return _odd(path.stat())
    except (OSError, ValueError):
        return None


def _odd(found: os.stat_result) -> str | None:
    if stat.S_ISREG(found.st_mode):
        return None
    return next((name for is_one, name in _KINDS if is_one(found.st_mode)), "a special file")


@contextlib.contextmanager
def native_output() -> Iterator[list[str]]:
    """Keeps what a C library writes or prints during a block; its lines are there at the end.

    Example:
        >>> with native_output() as said:
        ...     _ = os.write(2, b"bad chunk")
        >>> said
        ['bad chunk']

    The standard error by its descriptor, and what a binding prints through Python. Both are one for the whole process:
    what other threads write during the block is kept too. Without a standard error, only the latter is kept.
    """
    said: list[str] = []
    printed = io.StringIO()
    with _ERRORS, contextlib.redirect_stdout(printed), contextlib.ExitStack() as closing:
        closing.callback(lambda: said.extend(_lines(printed.getvalue())))
        try:
            sink = closing.enter_context(tempfile.TemporaryFile())
            before = os.dup(2)
        except OSError:  # closed, or no place for a temporary file
            yield said
            return
        closing.callback(os.close, before)
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(sink.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(before, 2)
            sink.seek(0)
            said.extend(_lines(sink.read(2**16).decode("utf-8", "replace")))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
