"""Which one thing, changed in the files of a pair, makes its two views agree that do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.two_view.diagnose.view_agreement import views_disagree
from pytest_overfit.two_view.pair.check import CheckedView

WIDE = 160  # pixels that are looked at along a row, at most


def cause_of_views(views: Sequence[CheckedView]) -> Cause | None:
    """The change, measured on the views themselves; None where none is clear, or the views differ in size.

    Example:
        >>> cause_of_views(views).observed                                                          # doctest: +SKIP
        "the views agree once the extrinsics are inverted: 96 % of the pixels of views 0 and 1 lie on the ..."

    Args:
        views: two of them, each with a depth (H, W) and an image (H, W, 3) of its own size.
    """
    import torch

    from pytest_overfit.two_view.diagnose.view_geometry import measure_views

    if len({view.depth.shape for view in views}) != 1 or any(v.image.shape[:2] != v.depth.shape for v in views):
        return None
    step = max(1, -(-views[0].depth.shape[1] // WIDE))  # centres of pixels lie at integers: every so many-th stays one
    smaller = np.diag([1 / step, 1 / step, 1.0])
    batch: dict[str, list[npt.NDArray[Any]]] = {
        "images": [np.moveaxis(view.image[::step, ::step].astype(np.float32) / 255, -1, 0) for view in views],
        "depths": [view.depth[::step, ::step].astype(np.float32) for view in views],
        "intrinsics": [(smaller @ view.intrinsics).astype(np.float32) for view in views],
        "extrinsics": [view.world2cam[:3].astype(np.float32) for view in views],
    }
    seen = measure_views({key: torch.from_numpy(np.stack(arrays))[None] for key, arrays in batch.items()})
    return None if seen is None else next(views_disagree(seen, None), None)
