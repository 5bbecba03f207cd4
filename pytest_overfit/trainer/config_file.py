"""The config file itself: found, bounded, decoded and parsed, with the line and column of what is wrong in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.suggest import shorten
from pytest_overfit.settings import plain_yaml
from pytest_overfit.settings.overrides import MAX_INTERPOLATIONS
from pytest_overfit.settings.problems import (
    WITHIN_BITS,
    Problem,
    Unusable,
    did_you_mean,
    first_line,
    is_wide,
    shown,
    wide,
)
from pytest_overfit.untrusted.files import read_regular

MAX_BYTES = 1_000_000
MAX_NODES = 10_000  # 3 seconds; the largest example has 232
_BASE_60 = re.compile(r"(?:\d[\d_]?:){100}")
_EVENTS = {"SequenceStartEvent": "list", "ScalarEvent": "single value"}
INSTALL_HYDRA = 'next: pip install "pytest-overfit[hydra]"'


class Beyond(Unusable):
    """What only Hydra composes: where it is installed, it is asked before this is a problem."""


def needs_hydra(what: str) -> Beyond:
    """Something that Hydra does and this package does not."""
    return Beyond(Problem("defaults", f"{what}, which only Hydra can compose", hint=INSTALL_HYDRA))


def read_text(path: Path) -> str:
    """The text of a config file.

    Raises:
        Unusable: it is missing, not a file, too large or not UTF-8.
    """
    try:
        if not path.exists():
            siblings = sorted(item.name for item in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
            there = f"there: {shorten(siblings)}; " if siblings else ""
            hint = did_you_mean(path.name, siblings) or f"{there}pytest-overfit init writes one"
            raise Unusable(Problem("", "no such file", "a YAML file", hint))
        content = read_regular(path, most=MAX_BYTES)
        return content.decode("utf-8-sig")
    except OverfitError as error:
        raise Unusable(Problem("", error.found, f"a YAML file of at most {MAX_BYTES} bytes")) from error
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise Unusable(Problem("", f"byte 0x{byte:02x} at offset {error.start}", "UTF-8 text")) from error
    except (OSError, ValueError) as error:
        raise Unusable(Problem("", f"a file that cannot be read: {error}", "a readable YAML file")) from error


def read_include(path: Path) -> tuple[dict[Any, Any], bool]:
    """An included file, which may be empty, and whether it has a header such as ``# @package``, which is Hydra's.

    Raises:
        Unusable: whatever is wrong with the file, as a problem of ``defaults``.
    """
    try:
        text = read_text(path)
        return parse(text, empty=True), re.match(r"(\s*#.*\n)*?\s*#\s*@", text[:512]) is not None
    except Unusable as error:
        told = (
            Problem("defaults", f"in {path}{item.key} {item.found}", item.allowed, item.hint) for item in error.problems
        )
        raise Unusable(*told) from error


def parse(text: str, *, empty: bool = False) -> dict[Any, Any]:
    """The mapping that a YAML text holds, of plain values.

    Args:
        empty: a text without settings gives an empty mapping.

    Raises:
        Unusable: syntax, duplicate keys, no mapping at the top level, or aliases that expand without end.
    """
    import yaml

    try:
        if _is_empty(text):
            if empty:
                return {}
            raise Unusable(Problem("", "an empty file", "a mapping of settings, such as `img_size: 224`"))
        if text.count("${") > MAX_INTERPOLATIONS:
            found = f"{text.count('${')} interpolations"
            raise Unusable(Problem("", found, f"at most {MAX_INTERPOLATIONS} in a file"))
        if _BASE_60.search(text):  # the time to read one grows with its square
            raise Unusable(Problem("", "a number of a hundred digits to the base 60", WITHIN_BITS))
        tree = plain_yaml.load(text)
        if "*" in text and (size := _size(tree, {})) > MAX_NODES:  # aliases: a few lines can expand to gigabytes
            raise Unusable(Problem("", f"aliases that expand to {size} values", f"at most {MAX_NODES} values"))
        tree = _plain(tree, "")
    except Unusable:
        raise
    except RecursionError as error:
        raise Unusable(Problem("", "values nested too deeply", "a plain tree of settings")) from error
    except yaml.MarkedYAMLError as error:
        raise Unusable(marked_problem(error)) from error
    except Exception as error:  # a third-party parser on arbitrary text: whatever it raises, the text is at fault
        raise Unusable(Problem("", f"text that is not a config: {first_line(error)}", "YAML")) from error
    assert isinstance(tree, dict)
    return tree


def marked_problem(error: Exception) -> Problem:
    """A YAML error with its line and column, both counted from 1."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
    what = getattr(error, "problem", None) or first_line(error)
    if what.startswith("found duplicate key"):
        return Problem(where, what.removeprefix("found "), "each key once")
    hint = "indent with spaces" if "'\\t'" in what else ""
    return Problem(where, f"a YAML syntax error: {what}", hint=hint)


def _is_empty(text: str) -> bool:
    """Looks at the first YAML event only: OmegaConf would turn a lone word into ``{word: null}``."""
    import yaml

    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.MappingStartEvent):
            return False
        if isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.ScalarEvent) and event.value == "":
                return True
            name = type(event).__name__
            found = f"a {_EVENTS.get(name, name)} at the top level"
            raise Unusable(Problem("", found, "a mapping of settings, such as `img_size: 224`"))
    return True


def _plain(node: Any, key: str, inside: tuple[int, ...] = ()) -> Any:
    """A tree of text, numbers, switches, null, lists and mappings, of which no part is another one.

    An alias gives one part in two places, of which an override means one. A tag makes other things.
    """
    if id(node) in inside:
        raise Unusable(Problem(key, "an alias of a value inside itself", "a plain tree of settings"))
    within = (*inside, id(node))
    if isinstance(node, dict):
        for name in node:
            if not isinstance(name, (str, int, float)):
                raise Unusable(Problem(key, f"text that is not a config: {shown(name)} as a key", "YAML"))
            _plain(name, key)
        return {name: _plain(value, f"{key}.{name}" if key else str(name), within) for name, value in node.items()}
    if isinstance(node, list):
        return [_plain(value, f"{key}[{index}]", within) for index, value in enumerate(node)]
    if is_wide(node):
        raise Unusable(Problem(key, wide(node), WITHIN_BITS))
    if not isinstance(node, (str, int, float, bytes, type(None))):
        raise Unusable(Problem(key, f"text that is not a config: a {type(node).__name__}", "YAML"))
    return node


def _size(node: Any, known: dict[int, int]) -> int:
    """How many values a tree expands to, without expanding it: each part of it is counted once."""
    if not isinstance(node, (dict, list)):
        return 1
    if id(node) not in known:
        known[id(node)] = 1  # of an alias inside itself
        inner = node.values() if isinstance(node, dict) else node
        known[id(node)] = 1 + len(node) * isinstance(node, dict) + sum(_size(value, known) for value in inner)
    return known[id(node)]
