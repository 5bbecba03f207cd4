"""What a cause says in a language that is not that of the ids: its name, its meaning, and what was seen of it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

CATALOGUE = ("forms.zh.txt", "advice.zh.txt", "findings.zh.txt")


def _read(name: str) -> list[str]:
    return files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()


@cache
def _chinese() -> tuple[dict[str, tuple[str, str]], tuple[tuple[str, str], ...]]:
    """Of each id its name, and its meaning with what to do; then pairs of what is said, English and Chinese."""
    lines = [line for each in CATALOGUE for line in _read(each)]
    seen = [line.strip() for line in lines if line.startswith(" ")]
    named = {line.split(" ", 1)[0]: line.split(" ", 1)[1].split("：", 1) for line in lines if not line.startswith(" ")}
    return {each: (name, told) for each, (name, told) in named.items()}, tuple(zip(seen[::2], seen[1::2], strict=True))


def title(cause: str, lang: str) -> str:
    """The id of a cause, with what it means in a language that is not that of the ids.

    Example:
        >>> title("lr-low", "en"), title("lr-low", "zh"), title("mine.own", "zh")
        ('lr-low', 'lr-low 学习率过小', 'mine.own')
    """
    return f"{cause} {_chinese()[0][cause][0]}" if lang == "zh" and cause in _chinese()[0] else cause


def meaning(cause: str, lang: str) -> str:
    """What a cause is and what to do, in a language that is not that of its own sentence; else empty.

    Example:
        >>> meaning("lr-low", "en"), meaning("lr-low", "zh")
        ('', '步长太小或为零，损失几乎不动；换用能通过的学习率。')
    """
    return _chinese()[0][cause][1] if lang == "zh" and cause in _chinese()[0] else ""


def seen_forms() -> tuple[tuple[str, str], ...]:
    """The forms of what findings and causes say, English and Chinese, the same ``{fields}`` in both."""
    return _chinese()[1]
