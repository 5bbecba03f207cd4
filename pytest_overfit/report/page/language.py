"""A page in the language of its report: what is fixed in it, and what findings and causes say; code stays."""

from __future__ import annotations

import html
import re
from functools import cache
from importlib.resources import files

from pytest_overfit.text.translations import translated

_PIECE = re.compile(r"(<(script|style|code|pre)\b.*?</\2>|<[^>]*>)", re.DOTALL)
_SAID = re.compile(r'(\b(?:aria-label|placeholder|title|data-label|alt)=")([^"]*)"')


def in_language(page: str, lang: str) -> str:
    """A page with its texts in a language, those between tags and those of attributes that are read.

    Example:
        >>> in_language("<html lang=\\"en\\"><h2>Curves</h2><code>Curves</code>", "zh")
        '<html lang="zh"><h2>曲线</h2><code>Curves</code>'
    """
    if lang == "en":
        return page
    pieces = _PIECE.split(page.replace('<html lang="en">', f'<html lang="{lang}">', 1))
    return "".join(
        _SAID.sub(lambda found: f'{found[1]}{_said(found[2], lang)}"', piece) if at % 3 else _said(piece, lang)
        for at, piece in enumerate(pieces)
        if at % 3 != 2  # the name of an element that stays
    )


def _said(text: str, lang: str) -> str:
    """A text with its spaces; what is escaped is so again."""
    bare = html.unescape(text.strip())
    now = _words().get(bare) or translated(bare, lang)
    return text if now == bare else text.replace(text.strip(), html.escape(now))


@cache
def _words() -> dict[str, str]:
    lines = files(__package__).joinpath("words.zh.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" = ", 1) for line in lines)
