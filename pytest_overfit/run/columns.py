"""Rows of a run, one mapping per step, as curves; no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.run.names import resolve_term

if TYPE_CHECKING:
    from pytest_overfit.settings.criteria import Limit

HYPER = ("lr", "weight_decay")
GRADIENTS = "grad_norm/"
GONE = 0.01  # of its peak: a rate that is less does hardly anything


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


def count_held(rows: Sequence[Mapping[str, float]], limits: Mapping[str, Limit], most: int = 10**9) -> int:
    """For how many of the latest steps in a row, at most so many, every limited term has been within its limit."""
    held = min(most, len(rows))
    for criterion, limit in limits.items():
        name = next((name for row in reversed(rows) if (name := resolve_term(criterion, row))), None)
        if name is None:
            return 0
        start, asked = rows[: limit.window] if limit.relative else (), rows[-(held + limit.window) :]
        known = name in asked[0] and len(start) + len(asked) < len(rows)
        curve = column_of([*start, *asked] if known else rows, name)
        first = limit.start(curve)
        within = (limit.holds(limit.measure(curve, len(curve) - back, first)) for back in range(held))
        held = next((back for back, holds in enumerate(within) if not holds), held)
    return held


def may_hold(row: Mapping[str, float], rows: Sequence[Mapping[str, float]], limits: Mapping[str, Limit]) -> bool:
    """Whether a step that follows others may be within every limit, as far as its terms alone tell."""
    first = rows[0] if rows else row
    for criterion, limit in limits.items():
        name = resolve_term(criterion, row)
        if name is None or limit.window > 1 or (limit.relative and name not in first):
            continue
        if not limit.holds(limit.measure((first.get(name, math.nan), row[name]), 2)):
            return False
    return True


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


def gone_at(rates: Sequence[float]) -> int | None:
    """The step from which on a learning rate is far below its own peak, in the first half of a run; None: in none.

    Example:
        >>> gone_at([1e-3, 1e-3, 1e-6, 1e-6, 1e-6, 1e-6]), gone_at([1e-3] * 6)
        (2, None)
    """
    last = max((step for step, rate in enumerate(rates) if rate > GONE * max(rates)), default=len(rates))
    return last + 1 if 2 * (last + 1) < len(rates) else None
