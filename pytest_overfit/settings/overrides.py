"""``--overfit-set key=value``: any key, existing or new, list indices included; ``~section.key`` takes one out.

Scalars are read as YAML reads them in a config file, lists and mappings as people type them. Quotes and spaces are
needed less than in YAML, as in Hydra's grammar: ``{a:1}`` is a mapping, ``[*agg*]`` a list of one text, ``${a.b}``
stands anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.settings import plain_yaml
from pytest_overfit.settings.problems import WITHIN_BITS, Problem, Unusable, is_wide, shown, wide
from pytest_overfit.settings.secret import told_override

_MAX_DEPTH = 64
_LONGEST_BASE_60 = 100
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'", re.DOTALL)
_NAME = re.compile(r"[^\s,:\[\]{}'\"][^,:\[\]{}]*(?=:)")
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
    value = reader.value() if text[0] in "[{'\"" else _scalar(reader.plain(","))
    if reader.ahead() == "," or _SWEEP.fullmatch(text):
        raise ValueError("several values")
    if reader.ahead() or _FUNCTION.fullmatch(text):
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

    def ahead(self) -> str:
        """The next sign that is no space, or nothing at the end."""
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def malformed(self) -> ValueError:
        return ValueError(f"the value {shown(self.text)}")

    def takes(self, sign: str) -> bool:
        """Steps over a sign, where it is the next."""
        found = self.ahead() == sign
        self.at += found
        return found

    def value(self, depth: int = 0) -> Any:
        """A list, a mapping, quoted text or a scalar."""
        if depth > _MAX_DEPTH:
            raise self.malformed()
        if self.takes("["):
            return [self.value(depth + 1) for _ in self.items("]")]
        if self.takes("{"):
            return self.mapping(depth)
        if self.ahead() in ("'", '"'):
            return self.quoted()
        text = self.plain(",[]{}").strip()
        if not text or ("${" not in text and (": " in text or text.endswith(":"))):
            raise self.malformed()
        return _scalar(text)

    def items(self, closing: str) -> Iterator[None]:
        """Once before every item, up to and over the closing bracket."""
        while not self.takes(closing):
            yield
            if not self.takes(",") and self.ahead() != closing:
                raise self.malformed()

    def mapping(self, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for _ in self.items("}"):
            key = self.key()
            if key in found or not self.takes(":"):
                raise self.malformed()
            found[key] = self.value(depth + 1)
        return found

    def key(self) -> Any:
        if self.ahead() in ("'", '"'):
            return self.quoted()
        return _scalar(self.match(_NAME).strip())

    def match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if not found:
            raise self.malformed()
        self.at = found.end()
        return found[0]

    def quoted(self) -> str:
        import yaml

        try:
            return str(yaml.safe_load(self.match(_QUOTED)))
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
                depth += {"{": 1, "}": -1}.get(self.text[self.at], 0)
            elif self.text[self.at] in stops:
                break
            self.at += 1
        if depth:
            raise self.malformed()
        return self.text[start : self.at]


MAX_INTERPOLATIONS = 10_000  # of one file or override
_FORM = "key=value (a list is key=[1,2]; a mapping key={a: 1}; text with a comma in quotes)"
_PART = r"[^\s.\[\]=@/{}'\"]+(\[\d+\])*"
_KEY = re.compile(rf"{_PART}(\.{_PART})*")


@dataclass(frozen=True)
class Override:
    """One parsed override.

    Example:
        >>> parse_override("data.train.dataset.dataset_configs[0].ROOT=/data").parts[-2:]
        ('0', 'ROOT')

    Args:
        text: as it was given.
        parts: the key, list indices as digits.
        value: plain; text may hold ``${...}``, which is resolved with the rest of the config.
        of_hydra: what only Hydra reads: ``+key=value``, ``~group``, ``group@package=option``, ``hydra.*=...``.
        removes: ``~section.key``: the key is taken out, whichever file gives it.
        whole: a mapping replaces what is there, where it would otherwise be merged with it.
    """

    text: str
    parts: tuple[str, ...]
    value: Any = None
    of_hydra: bool = False
    whole: bool = False
    removes: bool = False

    @property
    def told(self) -> str:
        """The text as a message may show it."""
        return told_override(self.text)

    @property
    def key(self) -> str:
        """The dotted key, as `Section.path` spells it."""
        return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", ".".join(self.parts))

    @property
    def is_group(self) -> bool:
        """Whether it can only be the choice of a config group: ``group/sub=option``."""
        return "/" in self.parts[0]


def parse_override(text: str) -> Override:
    """Reads one override.

    Raises:
        Unusable: it is malformed, or a sweep over several values.
    """
    name, equals, value = text.partition("=")
    key = name.strip()
    if key.startswith("~") and not equals and "." in key and _KEY.fullmatch(key[1:]):
        return Override(text, _parts(key[1:]), removes=True)
    of_hydra = name.startswith(("+", "~")) or "@" in key or re.match(r"hydra\b", key) is not None
    if not equals and not name.startswith("~"):
        raise _malformed(text, "no `=`")
    if text.count("${") > MAX_INTERPOLATIONS:
        raise _malformed(text, f"more than {MAX_INTERPOLATIONS} interpolations")
    if of_hydra or "/" in key:
        return Override(text, (key,), _value(text, value), of_hydra)
    if not _KEY.fullmatch(key):
        raise _malformed(text, f"the key {shown(key)}")
    return Override(text, _parts(key), _value(text, value))


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[.\[\]]+", key) if part)


def _value(text: str, value: str) -> Any:
    try:
        return parse_value(value)
    except ValueError as error:
        raise _malformed(text, str(error) if told_override(text) == text else "a value that cannot be read") from error


def _malformed(text: str, found: str) -> Unusable:
    return Unusable(Problem("", f"override {shown(told_override(text))} with {found}", _FORM))
