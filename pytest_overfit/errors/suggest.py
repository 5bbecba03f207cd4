"""Names in messages: the nearest valid one to a misspelt one, long lists cut short, signs that can be seen."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


def nearest(word: str, choices: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """The choice most like ``word``, or None when nothing is near.

    Example:
        >>> nearest("objectve", ["objective", "camera"])
        'objective'
    """
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def shorten(names: Iterable[str], most: int = 4) -> str:
    """The first few names and how many more there are.

    Example:
        >>> shorten(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    listed = list(names)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest


def from_here(path: str) -> str:
    """A path below the working directory as it is named from there, any other one as it is.

    Example:
        >>> from_here(f"{Path.cwd()}/pair/train.npz"), from_here("/else/where")
        ('pair/train.npz', '/else/where')
    """
    return os.path.relpath(path) if path.startswith(f"{Path.cwd()}{os.sep}") else path


def printable(line: str) -> str:
    """One line for a terminal: a sign that would move its cursor, colour it or begin a line of its own is a space.

    Example:
        >>> printable("a" + chr(27) + "[2Jb" + chr(10) + "::error::c")
        'a [2Jb ::error::c'
    """
    return line if line.isprintable() else "".join(sign if sign.isprintable() else " " for sign in line)
