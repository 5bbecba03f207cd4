"""What a run's settings are and where each comes from, as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pytest_overfit.errors.suggest import printable
from pytest_overfit.settings.keywords import lookup, spelt, table_of_settings
from pytest_overfit.settings.ladder import Resolved
from pytest_overfit.settings.settings import OverfitSettings

_SHORTEST = 12  # signs of a value that are always shown


class Row(NamedTuple):
    """One setting of a resolved run."""

    setting: str
    value: str
    source: str


def explain_settings(resolved: Resolved) -> tuple[Row, ...]:
    """Every setting of a run without a config, by keyword, then every limit of a term.

    Example:
        >>> from pytest_overfit.settings.keywords import MARKER
        >>> from pytest_overfit.settings.ladder import layer_of_keywords, resolve_settings
        >>> explain_settings(resolve_settings([layer_of_keywords(MARKER, {"max_steps": 50})], where=""))[1]
        Row(setting='max_steps', value='50', source='@pytest.mark.overfit')
    """
    values = dict(settings_values(resolved.settings))
    return tuple(Row(name, values[name], source) for name, source in resolved.sources.items() if name in values)


def explain_lines(title: str, rows: Sequence[Row], width: int = 120, notes: Sequence[str] = ()) -> list[str]:
    """Rows as an aligned table under a title; values are cut where the line would be wider than ``width``. Then notes.

    Example:
        >>> for line in explain_lines("test_a", [Row("max_steps", "50", "ini"), Row("device", "model", "default")]):
        ...     print(line)
        overfit settings of test_a
          setting    value  source
          max_steps  50     ini
          device     model  default
    """
    table = [Row("setting", "value", "source"), *rows]
    first, last = (max(len(row[column]) for row in table) for column in (0, 2))
    room = max(_SHORTEST, width - first - last - 6)
    values = [row.value if len(row.value) <= room else f"{row.value[: room - 1]}…" for row in table]
    middle = max(map(len, values))
    lines = [
        f"  {row.setting:<{first}}  {value:<{middle}}  {row.source}" for row, value in zip(table, values, strict=True)
    ]
    return list(map(printable, [f"overfit settings of {title}", *lines, *(f"  note: {note}" for note in notes)]))


def settings_values(settings: OverfitSettings) -> Iterator[tuple[str, str]]:
    """Every setting by its keyword, and every limit of a term by its name, as the tables show them."""
    for setting in table_of_settings():
        yield setting.name, setting.text(lookup(settings, setting.key))
    yield from ((name, spelt(limit)) for name, limit in settings.criteria.terms.items())
