"""The table of settings: a keyword each of the marker, call and command line, its key in a config, its values."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.criteria_registry import entries
from pytest_overfit.settings.criterion import Criterion
from pytest_overfit.settings.kinds import Definition
from pytest_overfit.settings.settings import ANY_MODEL, AmpConfig, OverfitSettings


def lookup(record: Any, key: str) -> Any:
    """What a record has at a dotted key."""
    for part in key.split("."):
        record = getattr(record, part)
    return record


def spelt(value: Any) -> str:
    """On and off for switches, numbers as people write them, the settings of a record one after the other.

    Example:
        >>> spelt(True), spelt(0.5), spelt(()), spelt(AmpConfig(True, "float16")), spelt({"a": 1, "b": None})
        ('on', '0.5', 'none', 'float16', 'a 1, b off')
    """
    if isinstance(value, bool) or value is None:
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Limit):
        return value.text()
    if isinstance(value, AmpConfig):
        return value.dtype if value.enabled else "off"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(spelt, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {spelt(item)}" for name, item in value.items())
    if is_dataclass(value):
        return spelt({field.name: getattr(value, field.name) for field in fields(value)})
    return str(value)


MARKER = "@pytest.mark.overfit"
COMMAND_LINE = "command line"
INI = "ini"
DEFAULT = "default"
LIMIT = "a number (below it), {below: number, above: number, relative: true, window: steps}, or false"


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Args:
        name: the keyword of ``@pytest.mark.overfit(...)``, ``overfit(...)`` and ``run_overfit(...)``; "" for a key that
            a config alone has.
        key: the dotted key below ``overfit:`` in a config file.
        kind: what it may be.
        option: the command-line option of its own; its ini twin has the same name with underscores.
        none: how tables show that it is not set.
        borrowed: what stands for it under a config where it is not set.
    """

    name: str
    key: str
    kind: str
    help: str
    option: str = ""
    none: str = "off"
    borrowed: str = ""

    @property
    def default(self) -> str:
        """That of a run without a config."""
        return self.text(lookup(ANY_MODEL, self.key))

    @property
    def in_config(self) -> str:
        """That of a run with one."""
        return self.borrowed or self.text(lookup(OverfitSettings(), self.key))

    def text(self, value: Any) -> str:
        """A value as the tables show it."""
        return self.none if value is None or (value == () and self.none != "off") else spelt(value)


# Beside the criteria in their section.
_DECLARED = tuple(Setting(name, f"criteria.{name}", *rest) for name, *rest in (
    ("unused", "text, or a list of text", "globs over parameters that get no gradient on purpose"),
    ("frozen", "text, or a list of text", "globs over parameters that do not move on purpose"),
    ("infinite", "text, or a list of text", "globs over outputs, terms, parameters and buffers that may be infinite"),
    ("unbounded", "true or false", "the objective has no floor; its limit has to be stated"),
    ("stochastic", "true or false", "forward passes or draws are random: limits hold for a windowed mean"),
    ("allow", "text, or a list of text", "ids of causes (docs/causes.md) that are meant here; `id:glob`: there alone"),
))  # fmt: skip


def _row_of(criterion: Criterion) -> Setting:
    """A criterion as a row of the table."""
    kind = "true or false"
    if isinstance(criterion.setting, Limit):
        kind = "a limit"
    elif is_dataclass(criterion.setting):
        *first, last = [field.name for field in fields(criterion.setting)]
        listed = any("choices" in field.metadata for field in fields(criterion.setting))
        kind = f"true, false, {'a list of names, ' * listed}or a mapping of " + " and ".join(
            [*([", ".join(first)] if first else []), last]
        )
    borrowed = f"{spelt(criterion.switched_on(True))} with a {criterion.condition}" if criterion.condition else ""
    return Setting(criterion.name, f"criteria.{criterion.name}", kind, criterion.help, borrowed=borrowed)


def _definitions(record: Any, above: str = "") -> Iterator[tuple[str, Definition | None]]:
    """(key, definition) of the settings of a record and of those in it, in their order; None: the criteria."""
    for field in fields(record):
        key, definition = f"{above}{field.name}", field.metadata.get("definition")
        if key == "criteria" or definition is not None:
            yield key, definition
        else:
            yield from _definitions(getattr(record, field.name), f"{key}.")


def _rows() -> Iterator[Setting]:
    for key, definition in _definitions(OverfitSettings()):
        if definition is None:
            yield from (_row_of(entry.load()) for entry in entries().values())
            yield from _DECLARED
        else:
            more = definition.option, definition.none, definition.in_config
            yield Setting(definition.keyword, key, definition.kind.words, definition.help, *more)


@functools.cache
def _table() -> tuple[Setting, ...]:
    return tuple(_rows())


@functools.cache
def table_of_settings() -> tuple[Setting, ...]:
    """Every keyword; the limit that every run has comes first."""
    return tuple(sorted((row for row in _table() if row.name), key=lambda row: row.name != "objective"))


@functools.cache
def keys() -> Mapping[str, str]:
    """The key of every keyword. The modules of the criteria are not imported.

    Example:
        >>> keys()["camera"], keys()["max_steps"]
        ('criteria.camera', 'budget.max_steps')
    """
    criteria = {name: f"criteria.{name}" for name in (*entries(), *(row.name for row in _DECLARED))}
    found: dict[str, str] = {}
    for key, definition in _definitions(OverfitSettings()):
        found |= criteria if definition is None else {definition.keyword: key} if definition.keyword else {}
    return {"objective": criteria["objective"], **found}


@functools.cache
def no_terms() -> frozenset[str]:
    """Names of a config that are no keywords, and would otherwise be taken for a limit on a term of that name."""
    return frozenset({field.name for field in fields(OverfitSettings)} | {"terms", "config"}) - keys().keys()


def keys_of_a_config() -> tuple[Setting, ...]:
    """What has no keyword: the keys that a config alone has."""
    return tuple(row for row in _table() if not row.name)


# Of the marker alone.
CONFIG = Setting("config", "", "a path, relative to the test file", "the config file to run under")
TERMS = "criteria.terms"


def keyword_of(key: str) -> str:
    """The keyword of a dotted key below ``overfit:``; the key itself where it has none."""
    if key in _keywords():
        return _keywords()[key]
    head, _, rest = key.partition(".")
    return rest.removeprefix("terms.") if head == "criteria" else key


@functools.cache
def _keywords() -> Mapping[str, str]:
    return {key: name for name, key in keys().items()}


def marker_text() -> str:
    """The text of ``pytest --markers``."""
    lines = [f"  {setting.name:<18}{setting.help}: {setting.kind}" for setting in (CONFIG, *table_of_settings())]
    head = "overfit(config=..., max_steps=..., TERM=limit, ...): settings of the test's run (docs/settings.md)"
    return "\n".join([head, *lines, f"  {'TERM':<18}limit of the loss term of that name: {LIMIT}"])
