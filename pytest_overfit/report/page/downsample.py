"""Long curves with as many points as a page needs: every dip and every peak stays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

MOST_POINTS = 1500


def kept_indices(
    curves: Sequence[Sequence[float]], *, most: int = MOST_POINTS, always: Iterable[int] = ()
) -> list[int]:
    """The indices to draw of curves that share their steps: both ends, and the extremes of every stretch of each.

    Example:
        >>> kept_indices([[5, 4, 9, 3, 2, 0, 1, 1]], most=4)
        [0, 2, 3, 4, 5, 7]

    Args:
        most: about how many are kept, of all curves together.
        always: further indices to keep; those beyond the longest curve are not.
    """
    length = max(map(len, curves), default=0)
    if length <= most:
        return list(range(length))
    stretches = max(1, most // (2 * len(curves)))
    edges = [round(length * i / stretches) for i in range(stretches + 1)]
    kept = {0, length - 1, *(index for index in always if 0 <= index < length)}
    for curve in curves:
        for low, high in itertools.pairwise(edges):
            kept.update(_extremes(curve, low, min(high, len(curve))))
    return sorted(kept)


def _extremes(curve: Sequence[float], low: int, high: int) -> Iterator[int]:
    finite = [index for index in range(low, high) if math.isfinite(curve[index])]
    if finite:
        yield min(finite, key=curve.__getitem__)
        yield max(finite, key=curve.__getitem__)


def plain(values: Iterable[float]) -> list[float | None]:
    """Values as JSON takes them: seven digits, and None for what is no finite number.

    Example:
        >>> plain([1 / 3, math.inf])
        [0.3333333, None]
    """
    return [float(f"{value:.7g}") if math.isfinite(value) else None for value in values]


def symlog_threshold(values: Iterable[float]) -> float:
    """Below which size values are drawn on a linear scale: a thousandth of the largest, as a power of ten.

    Example:
        >>> symlog_threshold([-2.0, 40.0])
        0.01
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=1.0) or 1.0
    return 10.0 ** max(-300, math.floor(math.log10(largest)) - 3)


def symlog(value: float, threshold: float) -> float:
    """Linear around zero, logarithmic far from it, and of the sign of the value.

    Example:
        >>> round(symlog(-0.99, 0.01), 6), symlog(0.0, 0.01)
        (-2.0, 0.0)
    """
    return math.copysign(math.log10(1 + abs(value) / threshold), value)
