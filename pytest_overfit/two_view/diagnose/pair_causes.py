"""Which one thing, changed in the files of a pair, makes its two views agree that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.two_view.diagnose.view_agreement import views_disagree
from pytest_overfit.two_view.diagnose.views import plain_number
from pytest_overfit.two_view.pair.check import CheckedView
from pytest_overfit.two_view.pair.pair_files import ViewFiles

WIDE = 160  # pixels that are looked at along a row, at most
FOOT, UNSURE = 0.3048, 0.03  # metres; what a factor is measured to
SCENE = 0.2, 5000.0  # metres from the camera to the middle of a scene
_BASELINE = "units", "batch['extrinsics'"


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
    cause = None if seen is None else next(views_disagree(seen, None), None)
    return cause if cause is None or (cause.id, cause.where[:18]) != _BASELINE else _whose_unit(cause, views)


def files_of(cause: Cause, views: Sequence[ViewFiles]) -> list[Path]:
    """The files that what is wrong stands in, by the keys of the batch that a cause names."""
    kinds = {"images": "image", "depths": "depth", "intrinsics": "camera", "extrinsics": "camera"}
    named = dict.fromkeys(kind for key, kind in kinds.items() if f"batch[{key!r}]" in cause.where)
    return [getattr(view, kind) for kind in named for view in views]


def _whose_unit(cause: Cause, views: Sequence[CheckedView]) -> Cause:
    """Depths and translations have two units: which of them is not metres, by the unit or by how far a scene can be."""
    factor, known = cause.evidence["factor"], _whose(cause.evidence["factor"], views)
    told = f"the translations of the extrinsics are multiplied by {plain_number(factor)}"
    if known == "extrinsics":
        advice = f"extrinsics[..., :3, 3] * {plain_number(factor)}: metres are wanted"
        return replace(cause, advice=advice)
    if known == "depths":
        by = plain_number(1 / factor)
        return replace(
            cause,
            where=cause.where.replace("batch['extrinsics']", "batch['depths']"),
            observed=cause.observed.replace(told, f"the depths are multiplied by {by}"),
            advice=f"depths * {by}: metres are wanted",
        )
    return replace(cause, where=cause.where.replace("batch['extrinsics']", "batch['extrinsics'] or batch['depths']"))


def _whose(factor: float, views: Sequence[CheckedView]) -> str | None:
    """Of which the unit is another one: ``depths``, ``extrinsics``, or None where it cannot be told."""
    for feet, whose in ((1 / FOOT, "depths"), (FOOT, "extrinsics")):
        if abs(factor / feet - 1) < UNSURE:
            return whose
    far = float(np.median(np.concatenate([view.depth[view.depth > 0] for view in views])))
    as_given, otherwise = (SCENE[0] <= metres <= SCENE[1] for metres in (far, far / factor))
    return None if as_given == otherwise else "extrinsics" if as_given else "depths"
