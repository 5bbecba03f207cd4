"""Rows of a run, one mapping per step, as curves; no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

HYPER = ("lr", "weight_decay")
GRADIENTS = "grad_norm/"


def is_extra(name: str) -> bool:
    """Whether a column of the curves is no loss term."""
    return name in HYPER or name.startswith(GRADIENTS)


def columns_of(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """One curve per name. A step that does not give a term shows its last value: some steps train another part.

    Example:
        >>> columns_of([{"objective": 2.0}, {"objective": 1.0, "aux": 3.0}])
        {'objective': (2.0, 1.0), 'aux': (3.0, 3.0)}
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: column_of(rows, name) for name in names}


def column_of(rows: Sequence[Mapping[str, float]], name: str) -> tuple[float, ...]:
    """One of the curves; before the first step that gives the term, its value there."""
    last, curve = next((row[name] for row in rows if name in row), math.nan), []
    for row in rows:
        last = row.get(name, last)
        curve.append(last)
    return tuple(curve)


def curves_of(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The columns as the fields of a ``RunRecord``: ``curves``, ``learning_rate``, ``weight_decay``, ``grad_norms``."""
    columns = columns_of(rows)
    return {
        "steps": len(rows),
        "curves": {name: curve for name, curve in columns.items() if not is_extra(name)},
        "learning_rate": columns.get("lr", ()),
        "weight_decay": columns.get("weight_decay", ()),
        "grad_norms": {n.removeprefix(GRADIENTS): c for n, c in columns.items() if n.startswith(GRADIENTS)},
    }
