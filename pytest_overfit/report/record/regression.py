"""What ``--overfit-compare-fail`` says of a comparison: one finding, and each change as a line."""

from __future__ import annotations

import math

from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.report.record.document import Change, Comparison
from pytest_overfit.report.record.golden import CURVE, golden_text, most_of


def regression(comparison: Comparison) -> Finding:
    """The finding of ``--overfit-compare-fail``."""
    limited = [change for change in comparison.changes if change.allowed is not None]
    if not limited:
        return Finding(
            "regression",
            False,
            comparison.note or "nothing to compare",
            f"a run that {comparison.name} has",
            where=f"saved as {comparison.name} on {comparison.saved}",
            hint=f"save it: --overfit-save {comparison.name}; a test that was renamed or moved is another test",
        )
    broken = [change for change in limited if change.broken]
    shown = "; ".join(map(change_text, broken or limited))
    named = len(limited) > 1
    most = ", ".join(most_of(change, named=named) for change in limited)
    margins = [change.allowed / change.ratio for change in limited if change.allowed and change.ratio > 0]
    return Finding(
        "regression",
        not broken,
        shown,
        most,
        where=f"saved as {comparison.name} on {comparison.saved}" if broken else None,
        hint="look at what changed since then, or save this run if it is meant to be so" if broken else None,
        margin=min(margins, default=None),
    )


def change_text(change: Change) -> str:
    """One change as a line.

    Example:
        >>> change_text(Change("steps", 40, 160, 4.0, (3.8, 4.2), 3, True))
        'steps 40 -> 160 (4x; 3.8x to 4.2x over 3 seeds)'
    """
    if change.quantity == CURVE:
        return golden_text(change)
    seeds = (
        f"; {change.spread[0]:.3g}x to {change.spread[1]:.3g}x over {change.seeds} seeds" if change.seeds > 1 else ""
    )
    other = "; medians of different seeds" if not change.seeds else ""
    now = "not passed" if math.isinf(change.now) else number(change.now)
    then = "not passed" if math.isinf(change.then) else number(change.then)
    return f"{change.quantity} {then} -> {now} ({change.ratio:.3g}x{seeds}{other})"
