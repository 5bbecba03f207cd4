"""A page in the language of its report: what is fixed in it, and what findings and causes say; code and names stay."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from pytest_overfit.text.translations import translated

_PIECE = re.compile(r"(<(script|style|code|pre|bdi)\b.*?</\2>|<[^>]*>)", re.DOTALL)
DRAWN = ("bounds", "marks")  # what has a text in a chart
SCRIPTED = (
    *("step", "seed", "value", "limit met", "training", "validation", "saved run", "twin", "predicted", "true"),
    *("Copied", "Selected: press Ctrl+C", "this picture cannot be shown."),
)
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
        _SAID.sub(lambda found: f'{found[1]}{_escaped(found[2], lang)}"', piece) if at % 3 else _escaped(piece, lang)
        for at, piece in enumerate(pieces)
        if at % 3 != 2  # the name of an element that stays
    )


def in_data(charts: Sequence[Mapping[str, Any]], lang: str) -> list[dict[str, Any]]:
    """What the script of a page draws, with the texts of axes, limits and marks in a language.

    Example:
        >>> in_data([{"axis": "learning rate", "marks": []}], "zh")
        [{'axis': '学习率', 'marks': []}]
    """
    return [
        {
            **chart,
            "axis": _said(chart["axis"], lang),
            **{key: [_mark(each, lang) for each in chart[key]] for key in DRAWN if key in chart},
        }
        for chart in charts
    ]


def script_words(lang: str) -> dict[str, str]:
    """What the scripts of a page say by themselves, where that is not what they have."""
    return {} if lang == "en" else {word: _said(word, lang) for word in SCRIPTED}


def _mark(drawn: Mapping[str, Any], lang: str) -> dict[str, Any]:
    return {key: _said(value, lang) if key == "text" else value for key, value in drawn.items()}


def _escaped(text: str, lang: str) -> str:
    """A text with its spaces; what is escaped is so again."""
    bare = html.unescape(text.strip())
    now = _said(bare, lang)
    return text if now == bare else text.replace(text.strip(), html.escape(now))


def _said(text: str, lang: str) -> str:
    return text if lang == "en" else _words().get(text) or translated(text, lang)


@cache
def _words() -> dict[str, str]:
    lines = files(__package__).joinpath("words.zh.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" = ", 1) for line in lines)
