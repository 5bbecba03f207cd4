"""Which lines of the user's own a thread is in."""

from __future__ import annotations

import itertools
import linecache
import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from pytest_overfit.errors.suggest import from_here

MOST_LINES = 6  # of a stack
LONGEST = 100  # characters of a line of code
PACKAGE = Path(__file__).resolve().parents[1]
STDLIB, SCRIPTS = sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["scripts"]


def users_lines(frame: FrameType | None, *, until: str | None = None) -> tuple[str, ...]:
    """The lines of user code that a thread is in, the innermost first; of library code alone the innermost line.

    ``until`` is the function whose callers are not looked at; there library code alone gives no line.

    Example:
        >>> users_lines(sys._getframe())                                             # doctest: +SKIP
        ('loss at test_model.py:7: queue.get()',)
    """
    frames = list(itertools.takewhile(lambda each: each[2] != until, frames_of(frame)))
    of_user = [each for each in frames if not is_library(each[0])]
    return tuple(_line(*each) for each in (of_user or frames[: until is None])[:MOST_LINES])


def is_library(path: str) -> bool:
    """Whether a file is none of the user's: installed, of Python itself, of this package, or no file."""
    parts = Path(path).parts
    return (
        "site-packages" in parts
        or "dist-packages" in parts
        or path.startswith((*(f"{folder}{os.sep}" for folder in (PACKAGE, STDLIB, SCRIPTS)), "<"))
    )


def hung_in(line: str) -> str:
    """Where a thread hangs, of a line that ``users_lines`` has told; of a library's nothing: it may be merely slow.

    Example:
        >>> hung_in("loss at test_model.py:7: queue.get()")
        ', hung in loss at test_model.py:7: queue.get()'
        >>> hung_in("backward at venv/lib/site-packages/torch/autograd/graph.py:979: return run()")
        ''
    """
    found = re.search(r" at (.+?):\d+(?:: |$)", line)
    return "" if found is not None and is_library(found[1]) else f", hung in {line}"


def frames_of(frame: FrameType | None) -> Iterator[tuple[str, int, str]]:
    """File, line and function of a frame and of its callers, the innermost first."""
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
        frame = frame.f_back


def _line(path: str, number: int, name: str) -> str:
    here = from_here(path)
    code = linecache.getline(path, number).strip()
    return f"{name} at {here}:{number}{': ' if code else ''}{code[:LONGEST]}"
