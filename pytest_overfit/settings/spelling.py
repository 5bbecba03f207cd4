"""Values of settings as tables show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pytest_overfit.settings.criteria import Limit
from pytest_overfit.settings.settings import AmpConfig


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
