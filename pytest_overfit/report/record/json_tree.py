"""The tree of values in a JSON text that anybody may have written: bounded, and with one kind of error.

Python's own reader ends deep nesting in a RecursionError and long numbers in a ValueError, takes NaN, which is no
JSON, and of a key that stands twice the second value.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytest_overfit.errors import OverfitError
from pytest_overfit.untrusted.files import read_regular

MOST_BYTES = 192 * 2**20
# A value takes some 40 bytes once it is read and judged, a list or mapping up to 300: together below 700 MiB. Thirty
# curves of 200,000 steps are 6 million values.
MOST_VALUES = 8_000_000
MOST_CONTAINERS = 1_000_000
MOST_DIGITS = 20  # of 64 bits


class NotATree(ValueError):  # noqa: N818 - becomes an OverfitError that knows the place
    """A text that is no JSON, or more of it than can be taken in."""


def parse_tree(data: bytes) -> Any:
    """The values of a JSON text in UTF-8.

    Example:
        >>> parse_tree(b'{"a": [1, 2.5]}')
        {'a': [1, 2.5]}

    Raises:
        NotATree: it is no JSON, says a key twice, nests too deeply, holds too much, or a number that no quantity has.
    """
    values, containers = data.count(b","), data.count(b"[") + data.count(b"{")
    if values > MOST_VALUES or containers > MOST_CONTAINERS:
        raise NotATree(f"JSON of {values} values in {containers} lists and mappings, too many to be read")
    try:
        tree = json.loads(
            data.decode("utf-8"),
            parse_int=_whole,
            parse_float=_real,
            parse_constant=_refuse_constant,
            object_pairs_hook=_once,
        )
        if b"\\ud" in data.lower():  # one half of a character is a string to Python, which nothing can write
            json.dumps(tree, ensure_ascii=False).encode()
        return tree
    except UnicodeEncodeError:
        raise NotATree("no text: one half of a character (a lone surrogate)") from None
    except UnicodeDecodeError as error:
        raise NotATree(f"no UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None
    except RecursionError:
        raise NotATree("no JSON that can be read: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NotATree(f"no JSON: {error}") from None


def read_tree(path: Path, *, allowed: str, hint: str | None = None) -> Any:
    """The values of a JSON file.

    Raises:
        OverfitError: it cannot be read, or is no JSON.
    """
    data = read_regular(path, most=MOST_BYTES, hint=hint)
    try:
        return parse_tree(data)
    except NotATree as error:
        raise OverfitError(str(error), where=path, allowed=allowed, hint=hint) from None


def wide_integer(value: Any, place: str = "") -> str | None:
    """Where a record holds an integer beyond 64 bits, which it may have out of a text of digits; None: nowhere.

    Example:
        >>> wide_integer({"a": (1, 10**400)})
        'a.1'
    """
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**64 else place
    if dataclasses.is_dataclass(value):
        inside: Iterable[tuple[Any, Any]] = vars(value).items()
    elif isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, (tuple, list)) and value and not isinstance(value[0], (float, str)):  # long ones are curves
        inside = enumerate(value)
    else:
        return None
    found = (wide_integer(each, f"{place}.{name}" if place else str(name)) for name, each in inside)
    return next((each for each in found if each is not None), None)


def _refuse_constant(name: str) -> Any:
    raise NotATree(f"no JSON: the token {name}")


def _whole(text: str) -> int:
    """Of at most 64 bits: Python neither writes one of thousands of digits nor makes a float of one of hundreds."""
    if len(text) > MOST_DIGITS + 1 or not -(2**63) <= (number := int(text)) < 2**64:
        raise NotATree(f"a whole number of {len(text.lstrip('-'))} digits, beyond 64 bits")
    return number


def _real(text: str) -> float:
    """Finite: to Python ``1e400`` is infinity, which is written as a text where it is meant."""
    number = float(text)
    if math.isinf(number):
        raise NotATree(f"the number {text[:40]}, which is beyond every float")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise NotATree(f"the key {name[:60]!r} twice in one mapping")
        found[name] = value
    return found
