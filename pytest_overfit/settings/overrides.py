"""``--overfit-set key=value``: any key, existing or new, list indices included; values as in a config file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pytest_overfit.settings.problems import Problem, Unusable, shown
from pytest_overfit.settings.secret import told_override
from pytest_overfit.settings.values import parse_value

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
        of_hydra: what only Hydra reads: ``+key=value``, ``~key``, ``group@package=option``, ``hydra.*=...``.
        whole: a mapping replaces what is there, where it would otherwise be merged with it.
    """

    text: str
    parts: tuple[str, ...]
    value: Any = None
    of_hydra: bool = False
    whole: bool = False

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
    of_hydra = name.startswith(("+", "~")) or "@" in key or re.match(r"hydra\b", key) is not None
    if not equals and not name.startswith("~"):
        raise _malformed(text, "no `=`")
    if text.count("${") > MAX_INTERPOLATIONS:
        raise _malformed(text, f"more than {MAX_INTERPOLATIONS} interpolations")
    if of_hydra or "/" in key:
        return Override(text, (key,), _value(text, value), of_hydra)
    if not _KEY.fullmatch(key):
        raise _malformed(text, f"the key {shown(key)}")
    parts = tuple(part for part in re.split(r"[.\[\]]+", key) if part)
    return Override(text, parts, _value(text, value))


def _value(text: str, value: str) -> Any:
    try:
        return parse_value(value)
    except ValueError as error:
        raise _malformed(text, str(error) if told_override(text) == text else "a value that cannot be read") from error


def _malformed(text: str, found: str) -> Unusable:
    return Unusable(Problem("", f"override {shown(told_override(text))} with {found}", _FORM))
