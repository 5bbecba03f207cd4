"""Which depths of a view are trusted: no sky, nothing too far, no outliers."""

from __future__ import annotations

import numpy as np

from pytest_overfit.two_view.pair.pair_files import SKY_LABEL, ByteArray, DepthArray

MIN_FOR_PERCENTILE = 100  # with fewer valid depths no outliers are cut off


def clean_depth(
    depth: DepthArray, labels: ByteArray | None, *, max_depth: float = 2000.0, depth_percentile: float = 98.0
) -> DepthArray:
    """A copy of the depth with 0 at sky pixels, beyond `max_depth`, and outside the percentiles of what is left.

    Example:
        >>> clean_depth(np.array([[1.0, 3000.0, 2.0]], np.float32), np.array([[0, 0, 2]], np.uint8)).tolist()
        [[1.0, 0.0, 0.0]]

    Args:
        depth: (h, w) metres, 0 = invalid.
        labels: (h, w) ADE20K-150 counted from 0, or None.
        max_depth: metres.
        depth_percentile: 50..100; both limits come from the same depths, and only if more than 100 are valid.
    """
    depth = depth.copy()
    if labels is not None:
        depth[labels == SKY_LABEL] = 0
    depth[depth > max_depth] = 0
    valid = depth[depth > 0]
    if valid.size > MIN_FOR_PERCENTILE:
        high, low = np.percentile(valid, [depth_percentile, 100 - depth_percentile])
        depth[(depth > high) | (depth < low)] = 0
    return depth
