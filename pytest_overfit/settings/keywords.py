"""The table of settings: one keyword each of the marker, the call and the command line, and its key in a config."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pytest_overfit.settings.settings import ANY_MODEL, OverfitSettings
from pytest_overfit.settings.spelling import lookup, spelt

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


_CRITERION = "true, false, or a mapping"
# Of every criterion, beside its record.
_CRITERIA = tuple(Setting(name, f"criteria.{name}", *rest) for name, *rest in (
    ("objective", "a limit", "limit of the loss that is minimised"),
    ("monotonic", f"{_CRITERION} of window, tolerance, floor and strict",
     "the running median of every limited term falls, and does not end above its best while above its "
     "limit"),
    ("finite", "true or false", "no NaN, no infinity: in losses, outputs, gradients"),
    ("gradients", "true or false", "every trainable parameter gets a gradient, is in an optimizer and moves"),
    ("supervised", f"{_CRITERION} of min_valid_ratio and min_target_ratio",
     "the loss answers to model and batch, starts above its limits and falls by the weights; a frame has "
     "this share of valid pixels, a target this share of elements that the loss reads"),
    ("constant_batch", "true or false", "two draws of a loader are equal, and the batch of every step is what it was"),
    ("train_val", f"{_CRITERION} of tolerance",
     "evaluation and training loss agree", "", "off", "tolerance 0.1 with a data.val"),
    ("prediction", f"{_CRITERION} of abs_rel, delta_1_25, rotation_deg and translation_deg",
     "the predictions themselves are near the truth"),
    ("generates", "true or false",
     "a language model of transformers gives the memorised sequences back, greedily from their first token"),
    ("unused", "text, or a list of text", "globs over parameters that get no gradient on purpose"),
    ("frozen", "text, or a list of text", "globs over parameters that do not move on purpose"),
    ("unbounded", "true or false", "the objective has no floor; its limit has to be stated"),
    ("stochastic", "true or false", "forward passes or draws are random: limits hold for a windowed mean"),
    ("defects", "true or false", "no probe finds a mistake that is certain, whatever the loss has reached"),
    ("allow", "text, or a list of text", "ids of causes (docs/causes.md) that are meant here"),
))  # fmt: skip


def _rows(record: Any, above: str = "") -> Iterator[Setting]:
    """The settings of a record and of those in it, in the order of their fields."""
    for field in fields(record):
        key, definition = f"{above}{field.name}", field.metadata.get("definition")
        if key == "criteria":
            yield from _CRITERIA
        elif definition is None:
            yield from _rows(getattr(record, field.name), f"{key}.")
        else:
            kind, more = definition.kind.words, (definition.option, definition.none, definition.in_config)
            yield Setting(definition.keyword, key, kind, definition.help, *more)


@functools.cache
def _table() -> tuple[Setting, ...]:
    return tuple(_rows(OverfitSettings()))


@functools.cache
def table_of_settings() -> tuple[Setting, ...]:
    """Every keyword; the limit that every run has comes first."""
    return tuple(sorted((row for row in _table() if row.name), key=lambda row: row.name != "objective"))


@functools.cache
def keys() -> Mapping[str, str]:
    """The key of every keyword.

    Example:
        >>> keys()["objective"], keys()["max_steps"]
        ('criteria.objective', 'budget.max_steps')
    """
    return {row.name: row.key for row in table_of_settings()}


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
    names = {dotted: name for name, dotted in keys().items()}
    if key in names:
        return names[key]
    head, _, rest = key.partition(".")
    return rest.removeprefix("terms.") if head == "criteria" else key


def marker_text() -> str:
    """The text of ``pytest --markers``."""
    lines = [f"  {setting.name:<18}{setting.help}: {setting.kind}" for setting in (CONFIG, *table_of_settings())]
    head = "overfit(config=..., max_steps=..., TERM=limit, ...): settings of the test's run (docs/settings.md)"
    return "\n".join([head, *lines, f"  {'TERM':<18}limit of the loss term of that name: {LIMIT}"])
