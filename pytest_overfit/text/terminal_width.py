"""How wide a text is on a terminal."""

from __future__ import annotations

import unicodedata


def padded(text: str, width: int) -> str:
    """A text with spaces up to so many columns of a terminal, where a Chinese sign takes two.

    Example:
        >>> padded("ok", 4), padded("通过", 5)
        ('ok  ', '通过 ')
    """
    return text + " " * (width - columns(text))


def columns(text: str) -> int:
    """The columns that a text takes on a terminal."""
    return len(text) + sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
