"""The value of an override: scalars as YAML reads them in a config file, lists and mappings as people type them.

Quotes and spaces are needed less than in YAML, as in Hydra's grammar: ``{a:1}`` is a mapping, ``[*agg*]`` a list of one
text, ``${a.b}`` stands anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.settings import plain_yaml
from pytest_overfit.settings.problems import WITHIN_BITS, is_wide, shown, wide

_MAX_DEPTH = 64
_LONGEST_BASE_60 = 100
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'", re.DOTALL)
_KEY = re.compile(r"[^\s,:\[\]{}'\"][^,:\[\]{}]*(?=:)")
# What can be anything else than text; only this is shown to YAML, to which a *, & or # would be syntax.
_TYPED = re.compile(r"~|[-+.\w]+(?::[-+.\w]+)*", re.ASCII)
# Hydra's functions: text to YAML, so that `range(1,4)` or `int(3)` would silently become something else.
_SWEEP = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\s*\(.*\)", re.DOTALL)
_FUNCTION = re.compile(r"(int|float|str|bool|json_str|extend_list)\s*\(.*\)", re.DOTALL)


def parse_value(text: str) -> Any:
    """Reads one value.

    Example:
        >>> parse_value("1e-4"), parse_value("{a:1, b: [x, '2']}"), parse_value("/data/run (1)")
        (0.0001, {'a': 1, 'b': ['x', '2']}, '/data/run (1)')

    Raises:
        ValueError: with what was found: several values, or a value that is malformed.
    """
    text = text.strip()
    if not text:
        return ""
    reader = _Reader(text)
    if text[0] in "[{'\"":
        value = reader.value(0)
        reader.skip_space()
    else:
        value = _scalar(reader.plain(","))
    if reader.ahead == "," or _SWEEP.fullmatch(text):
        raise ValueError("several values")
    if reader.ahead or _FUNCTION.fullmatch(text):
        raise reader.malformed()
    return value


def _scalar(text: str) -> Any:
    """A number, switch or null where YAML reads one, else the text itself."""
    if not _TYPED.fullmatch(text):
        return text
    if text.count(":") >= _LONGEST_BASE_60:
        raise ValueError("a number of a hundred digits to the base 60")
    try:
        with users_code():
            value = plain_yaml.load(f"value: {text}")["value"]
    except Refused:  # a lone `-`, a number of thousands of digits: text
        return text
    if is_wide(value):
        raise ValueError(f"{wide(value)}, where {WITHIN_BITS} are read")
    return value


@dataclass
class _Reader:
    """Walks through a list or a mapping, from ``at`` onwards."""

    text: str
    at: int = 0

    @property
    def ahead(self) -> str:
        """The next sign, or nothing at the end."""
        return self.text[self.at : self.at + 1]

    def malformed(self) -> ValueError:
        return ValueError(f"the value {shown(self.text)}")

    def skip_space(self) -> None:
        while self.ahead.isspace():
            self.at += 1

    def expect(self, sign: str) -> None:
        self.skip_space()
        if self.ahead != sign:
            raise self.malformed()
        self.at += 1

    def value(self, depth: int) -> Any:
        """A list, a mapping, quoted text or a scalar."""
        self.skip_space()
        if depth > _MAX_DEPTH:
            raise self.malformed()
        if self.ahead == "[":
            return self.items(depth)
        if self.ahead == "{":
            return self.pairs(depth)
        if self.ahead and self.ahead in "'\"":
            return self.quoted()
        text = self.plain(",[]{}").strip()
        if not text or ("${" not in text and (": " in text or text.endswith(":"))):
            raise self.malformed()
        return _scalar(text)

    def items(self, depth: int) -> list[Any]:
        found: list[Any] = []
        while self.goes_on("[", "]", first=not found):
            found.append(self.value(depth + 1))
        return found

    def pairs(self, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        while self.goes_on("{", "}", first=not found):
            key = self.key()
            if key in found:
                raise self.malformed()
            self.expect(":")
            found[key] = self.value(depth + 1)
        return found

    def goes_on(self, opening: str, closing: str, *, first: bool) -> bool:
        """Steps over the bracket or comma before the next item, or over the closing bracket."""
        if first:
            self.expect(opening)
        self.skip_space()
        if not first and self.ahead == ",":
            self.at += 1
            self.skip_space()
        elif not first and self.ahead != closing:
            raise self.malformed()
        if self.ahead == closing:
            self.at += 1
            return False
        return True

    def key(self) -> Any:
        if self.ahead and self.ahead in "'\"":
            return self.quoted()
        match = _KEY.match(self.text, self.at)
        if not match:
            raise self.malformed()
        self.at = match.end()
        return _scalar(match[0].strip())

    def quoted(self) -> str:
        import yaml

        match = _QUOTED.match(self.text, self.at)
        if not match:
            raise self.malformed()
        self.at = match.end()
        try:
            return str(yaml.safe_load(match[0]))
        except yaml.YAMLError as error:  # an escape or a control character that YAML does not know
            raise self.malformed() from error

    def plain(self, stops: str) -> str:
        """Text up to one of these signs; what stands in ``${...}`` belongs to it."""
        start, depth = self.at, 0
        while self.at < len(self.text):
            if self.text.startswith("${", self.at):
                depth += 1
                self.at += 1
            elif depth:
                depth += {"{": 1, "}": -1}.get(self.ahead, 0)
            elif self.ahead in stops:
                break
            self.at += 1
        if depth:
            raise self.malformed()
        return self.text[start : self.at]
