"""Globs over names: what they declare, and the shortest that say exactly what is meant."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Sequence

TEACHER = re.compile(
    r"(^|_)(teacher|ema|shadow|averaged?|momentum|(target|reference|ref)_(net(work)?|encoder|model|policy|critic))(_|$)"
)


def is_declared(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the globs matches a name.

    Example:
        >>> is_declared("pooler.bias", ["pooler.*"])
        True
    """
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def is_teacher(name: str) -> bool:
    """Whether a name says that a part follows another one, or stands fixed beside it, and takes no gradient.

    Example:
        >>> [is_teacher(name) for name in ("teacher.0.weight", "ema_encoder.bias", "momentum_encoder.w", "gemma.w")]
        [True, True, True, False]
    """
    return any(TEACHER.search(part) for part in name.split("."))


def exact_globs(wanted: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """The shortest globs that match all that is wanted and nothing else of ``names``.

    Example:
        >>> names = ["encoder.stem.weight", "encoder.last.weight", "encoder.last.bias", "head.weight"]
        >>> exact_globs(names[1:3], names)
        ('encoder.last.*',)
        >>> exact_globs(["layer.0.key.bias", "layer.1.key.bias"], ["layer.0.key.bias", "layer.1.key.bias", "layer.1.b"])
        ('layer.*.key.bias',)
    """
    rest = set(names) - set(wanted)
    left, found = list(dict.fromkeys(wanted)), []
    while left:
        best = next((glob for glob in _candidates(left[0]) if not _matches(glob, rest)), left[0])
        found.append(best)
        left = [name for name in left[1:] if not fnmatch.fnmatchcase(name, best)]
    return tuple(glob for glob in found if not any(glob != o and fnmatch.fnmatchcase(glob, o) for o in found))


def _candidates(name: str) -> Iterable[str]:
    """Globs of a name, the widest first; the name itself comes last."""
    parts = [re.sub(r"[\[\]*?]", "?", part) for part in name.split(".")]
    numbered = ["*" if part.isdigit() else part for part in parts]
    for home in range(1, len(parts)):
        for form in (numbered, parts):
            if form[0] != "*":
                yield ".".join((*form[:home], "*"))
    if numbered[0] != "*":
        yield ".".join(numbered)
    yield ".".join(parts)


def _matches(glob: str, names: Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for name in names)


def is_allowed(cause: str, where: str, allow: Iterable[str]) -> bool:
    """Whether a cause is declared to be meant: everywhere by its id, at some places by ``id:glob``.

    Every place that it names has to be one of them.

    Example:
        >>> is_allowed("degenerate-batch", "txt_ids", ["degenerate-batch:txt_*"])
        True
        >>> is_allowed("unused", "pooler.weight, head.bias and 2 more", ["unused:pooler.*", "leak"])
        False
    """
    globs = [place for name, _, place in (each.partition(":") for each in allow) if name == cause]
    return "" in globs or (bool(globs) and all(_is_among(place, globs) for place in places_of(where)))


def places_of(where: str) -> list[str]:
    """The places that a cause names, without the lines of code behind them.

    Example:
        >>> places_of("module head, model.py:12"), places_of("a.weight, a.bias and 3 more")
        (['module head'], ['a.weight', 'a.bias'])
    """
    listed = re.sub(r" and \d+ more$", "", where).split(", ")
    return [place for place in listed if not re.fullmatch(r"\S+\.py:\d+", place)] or listed


def _is_among(place: str, globs: Sequence[str]) -> bool:
    bare = place.split(" ")[-1]  # without the word before it: module head, term depth
    return any(fnmatch.fnmatchcase(form, glob) for form in (place, bare) for glob in globs)


def as_list(globs: Sequence[str]) -> str:
    """Globs as they are pasted into a call.

    Example:
        >>> as_list(("a.*", "b"))
        "['a.*', 'b']"
    """
    return repr(list(globs))
