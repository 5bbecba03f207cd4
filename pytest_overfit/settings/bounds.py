"""Numbers within bounds: read from what a config has, and in words."""

from __future__ import annotations

import math
from typing import Any


def as_number(value: Any, whole: bool) -> float | None:
    """A number, also where it is text; an int where it has to be whole. None: it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = value if isinstance(value, (int, float)) else float(value)
        if not math.isfinite(number):
            return None if whole else number
        if whole:
            return int(number) if number == int(number) else None
        return float(number)
    except (ValueError, OverflowError):
        return None


def number_words(
    whole: bool = False,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    under: float | None = None,
) -> str:
    """What a number within these bounds is called.

    Example:
        >>> number_words(True, at_least=1), number_words(above=0, at_most=86400)
        ('a whole number of at least 1', 'a number above 0, at most 86400')
    """
    words = ["a whole number" if whole else "a number"]
    if above is not None:
        words.append(f"above {above}" if at_most is None else f"above {above}, at most {at_most}")
    if at_least is not None:
        words.append(f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}")
    if at_most is not None and len(words) == 1:
        words.append(f"up to {at_most}")
    if under is not None:
        words.append(f"and below {under}" if len(words) > 1 else f"below {under}")
    return " ".join(words)
