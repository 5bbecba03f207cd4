"""A curve as a drawing of the size of a word."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_overfit.report.page.downsample import kept_indices, symlog, symlog_threshold

WIDTH, HEIGHT, EDGE = 120, 28, 2
POINTS = 48


def sparkline_points(curve: Sequence[float], limit: float | None = None) -> tuple[str, float | None]:
    """The points of an SVG polyline of 120 by 28, and the height at which the limit is; no points for no curve.

    The scale is logarithmic, or symmetric about zero where a value is not positive.

    Example:
        >>> sparkline_points([100.0, 10.0, 1.0])
        ('2,2 60,14 118,26', None)
    """
    finite = [value for value in curve if math.isfinite(value)]
    if len(finite) < 2:
        return "", None
    shown = [*finite, *([] if limit is None else [limit])]
    threshold = symlog_threshold(shown)
    linear = min(shown) <= 0

    def scaled(value: float) -> float:
        return symlog(value, threshold) if linear else math.log10(value)

    low, high = min(map(scaled, shown)), max(map(scaled, shown))

    def height(value: float) -> float:
        share = (scaled(value) - low) / (high - low) if high > low else 0.5
        return round(HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE), 1)

    kept = [index for index in kept_indices([curve], most=POINTS) if math.isfinite(curve[index])]
    last = max(1, len(curve) - 1)
    points = (f"{EDGE + index / last * (WIDTH - 2 * EDGE):.4g},{height(curve[index]):g}" for index in kept)
    return " ".join(points), None if limit is None else height(limit)
