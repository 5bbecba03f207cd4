"""Do the views of a batch agree under its cameras, and if not, with which one thing changed would they?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pytest_overfit.two_view.diagnose.plateaus import SUSPECT, share_left_out, without_plateaus
from pytest_overfit.two_view.diagnose.view_changes import compare
from pytest_overfit.two_view.diagnose.view_lookup import (
    FEW,
    comparable,
    connected,
    depth_of,
    has_shape,
    is_two_view,
    mask_of,
    pinhole,
    pixels_of,
    rays_of,
    to_numpy,
    usable,
    view_of,
)
from pytest_overfit.two_view.diagnose.views import Frame, Points, ViewsSeen

MOST_FRAMES, MOST_PAIRS, MOST_SEARCHED = 8, 4, 2


def measure_views(batch: Any) -> ViewsSeen | None:
    """What the batch itself shows of its views; None where it is no batch of two or more views.

    Example:
        >>> measure_views(batch).pairs[0].given.agree
        (0.93, 0.97, 1.0)

    Args:
        batch: `depths` (B, S, H, W), `extrinsics` (B, S, 3, 4) or (B, S, 4, 4) world2cam, `intrinsics` (B, S, 3, 3)
            pixels; where there are any, `images` (B, S, C, H, W), `point_masks` (B, S, H, W), and `world_points` and
            `cam_points` (B, S, H, W, 3).
    """
    if not is_two_view(batch):
        return None
    samples, count, height, width = batch["depths"].shape
    masked = has_shape(batch.get("point_masks"), batch["depths"].shape)
    places = [(b, s) for b in range(samples) for s in range(count)]
    frames = [_frame(batch, *place, masked) for place in places[:MOST_FRAMES]]
    pairs, plateaus, searched = [], [], 0
    for b, s in _thinned([(b, s) for b in range(samples) for s in range(count - 1)], MOST_PAIRS):
        views = view_of(batch, b, s, masked), view_of(batch, b, s + 1, masked)
        if not comparable(views):
            continue
        bare, found = without_plateaus(views, b, s)
        if any(plateau.contradicted > SUSPECT for plateau in found):
            left_out = share_left_out(views, (depth_of(batch, b, s), depth_of(batch, b, s + 1)))
            found = [replace(plateau, left_out=left_out) for plateau in found]
        plateaus += found
        pairs.append(compare(bare, b, s, search=searched < MOST_SEARCHED))
        searched += bool(pairs[-1].changes or pairs[-1].picture)
    return ViewsSeen(
        samples, count, height, width, tuple(frames), tuple(pairs), tuple(plateaus),
        points=tuple(_points(batch, masked)), masked=masked,
    )  # fmt: skip


def _thinned(places: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    step = max(1, math.ceil(len(places) / most))
    return places[::step]


def _frame(batch: Mapping[str, Any], b: int, s: int, masked: bool) -> Frame:
    depth = to_numpy(batch["depths"][b, s])
    height, width = depth.shape
    counts = mask_of(batch, b, s) if masked else depth > 0
    without, empty = 0.0, 0.0
    if masked and (missing := counts & (depth <= 0)).any():
        values, often = np.unique(depth[missing], return_counts=True)
        empty = float(values[often.argmax()])
        same = counts & (depth == empty)
        without = float(same.sum() / counts.sum()) if connected(same, counts) else 0.0
    K = to_numpy(batch["intrinsics"][b, s])
    principal = (float(K[0, 2] / width), float(K[1, 2] / height)) if pinhole(K, width) else (math.nan, math.nan)
    return Frame(b, s, float(counts.mean()), without, empty, principal)


def _points(batch: Mapping[str, Any], masked: bool) -> Iterator[Points]:
    """Points of the first sample against those of its depths and cameras."""
    for key in ("world_points", "cam_points"):
        if not has_shape(batch.get(key), (*batch["depths"].shape, 3)):
            continue
        held, made = [], []
        for s in range(batch["depths"].shape[1]):
            view = view_of(batch, 0, s, masked)
            if not usable(view):
                return
            u, v, z = pixels_of(view.depth, FEW)
            local = rays_of(view.intrinsics[None], u, v)[0] * z
            shift = view.pose[:3, 3:] if key == "world_points" else 0.0
            turn = np.linalg.inv(view.pose[:3, :3]) if key == "world_points" else np.eye(3)
            made.append(turn @ (local - shift))
            held.append(to_numpy(batch[key][0, s])[v.astype(int), u.astype(int)].T)
        ours, theirs = np.concatenate(made, 1), np.concatenate(held, 1)
        sizes = np.linalg.norm(ours, axis=0)
        if not np.isfinite(theirs).all() or sizes.min() <= 0:
            continue
        factor = float(np.median(np.linalg.norm(theirs, axis=0) / sizes))
        if factor > 0:
            off = np.linalg.norm(theirs - factor * ours, axis=0) / (factor * sizes)
            yield Points(key, factor, float(np.median(off)))
