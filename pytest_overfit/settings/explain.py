"""What a run's settings are and where each comes from, as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from pytest_overfit.errors.suggest import printable
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.keywords import SETTINGS
from pytest_overfit.settings.ladder import Resolved
from pytest_overfit.settings.settings import AmpConfig, OverfitSettings

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
    values = {name: value_text(name, value) for name, value in settings_values(resolved.settings)}
    values["seeds"] = values["seeds"] if resolved.settings.seeds else "0"
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


def value_text(name: str, value: Any) -> str:
    """The value of a setting as the tables show it."""
    if value is None:
        return {
            "max_seconds": "none",
            "max_steps": "none",
            "pass_at_least": "all",
            "diagnose_seconds": "three times all steps, at least 2",
        }.get(name, "off")
    return amp_text(value) if isinstance(value, AmpConfig) else word(value)


def settings_values(settings: OverfitSettings) -> Iterator[tuple[str, Any]]:
    for setting in SETTINGS:
        yield setting.name, lookup(settings, setting.key)
    criteria = settings.criteria
    yield from ((name, limit) for name, limit in (("camera", criteria.camera), ("depth", criteria.depth)))
    yield from criteria.terms.items()


def lookup(record: Any, key: str) -> Any:
    for part in key.split("."):
        record = getattr(record, part)
    return record


def amp_text(amp: AmpConfig) -> str:
    return amp.dtype if amp.enabled else "off"


def word(value: Any) -> str:
    """On and off for switches, numbers as people write them, the settings of a record one after the other."""
    if isinstance(value, bool) or value is None:
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Limit):
        return value.text()
    if isinstance(value, (tuple, list)):
        return ", ".join(map(word, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {word(item)}" for name, item in value.items())
    if is_dataclass(value):
        return word({field.name: getattr(value, field.name) for field in fields(value)})
    return str(value)
