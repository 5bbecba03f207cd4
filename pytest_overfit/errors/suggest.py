"""Names in messages: the nearest valid one to a misspelt one, long lists cut short, signs that can be seen."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

MOST_NAMES, NEAREST = 9, 3  # that are listed whole; of more


def nearest(word: str, choices: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """The choice most like ``word``, or None when nothing is near.

    Example:
        >>> nearest("objectve", ["objective", "camera"])
        'objective'
    """
    known = list(choices)
    matches = [each for each in known if each.casefold() == word.casefold()]
    matches = matches or difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    return matches[0] if matches else None


def some_of(word: str, choices: Iterable[str], place: str) -> str:
    """All of a few choices; of many those most like ``word``, and where all are.

    Example:
        >>> some_of("d", ["a", "b"], "the page"), some_of("threds", ["threads", *"abcdefghij"], "the page")
        ('a | b', 'threads | e | d and 8 more: the page')
    """
    names = list(choices)
    if len(names) <= MOST_NAMES:
        return " | ".join(names)
    near = difflib.get_close_matches(word, names, n=NEAREST, cutoff=0.0)
    return f"{' | '.join(near)} and {len(names) - NEAREST} more: {place}"


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
