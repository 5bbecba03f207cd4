"""The error of a run that came to no training, in its parts: what was refused, where, and what to change."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NOTE = re.compile(r"  (shapes|where|change|next): (.*)")
_NO_KIND = re.compile(r"(AssertionError|Failed): ")


@dataclass(frozen=True)
class ErrorText:
    """``said`` is the first line, ``shapes`` the refused call; ``rest`` are the lines that are none of these."""

    said: str = ""
    shapes: str = ""
    where: str = ""
    change: str = ""
    rest: str = ""

    @property
    def headline(self) -> str:
        """The one line that says most."""
        return self.shapes or self.said


def error_text(error: str | None) -> ErrorText:
    """An error as a document keeps it, in its parts.

    Example:
        >>> error_text("RuntimeError: no\\n  shapes: mse_loss of (8, 4), (8,)\\n  where: a.py:3").headline
        'mse_loss of (8, 4), (8,)'
    """
    first, *others = (error or "").strip().splitlines() or [""]
    notes = {found[1]: found[2] for line in others if (found := _NOTE.fullmatch(line))}
    rest = [line for line in others if not _NOTE.fullmatch(line)]
    return ErrorText(
        _NO_KIND.sub("", first),
        notes.get("shapes", ""),
        notes.get("where", ""),
        notes.get("change") or notes.get("next", ""),
        "\n".join(rest).strip("\n"),
    )
