"""What the rules of two views share: a weight, and how numbers are written."""

from __future__ import annotations

SURE = 0.95  # weight of what cannot be otherwise


def plain_number(value: float) -> str:
    """Three digits, without an exponent where there is room: 5550, 0.171."""
    return f"{float(f'{value:.3g}'):.6g}"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %" if 0 < share < 0.01 else f"{100 * share:.0f} %"
