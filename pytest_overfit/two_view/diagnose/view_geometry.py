"""Do the views of a batch agree under its cameras, and if not, with which one thing changed would they?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pytest_overfit.two_view.diagnose.view_changes import compare
from pytest_overfit.two_view.diagnose.view_lookup import (
    ENOUGH,
    FEW,
    MANY,
    Array,
    View,
    Views,
    agreement_of,
    as_given,
    both_ways,
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
from pytest_overfit.two_view.diagnose.views import TOLERANCES, Frame, Plateau, Points, ViewsSeen

PLATEAU = 0.02  # share of the valid pixels
MOST_PLATEAUS = 8  # of one view, the largest
SUSPECT, FAR = 0.2, 2.0  # share that is contradicted, and depth over the rest's, from which a plateau is of interest


def without_plateaus(views: Views, b: int, s: int) -> tuple[Views, list[Plateau]]:
    """The views without what both carry as one number, and every plateau that was found in them."""
    first, second = (_plateaus(view.depth) for view in views)
    shared = [value for value in first if value in second]
    bare = (_without(views[0], shared), _without(views[1], shared))
    if not comparable(bare):
        return views, []
    found = [_plateau(views, bare, value, (s, s + 1), b) for value in shared]
    alone = ([v for v in values if v not in shared][:2] for values in (first, second))
    for k, values in enumerate(alone):
        found += [_plateau((views[k], views[1 - k]), (bare[k], bare[1 - k]), v, (s + k,), b) for v in values]
    return bare, [plateau for plateau in found if plateau is not None]


def share_left_out(views: Views, depths: tuple[Array, Array]) -> float:
    """The share of all pixels that do not count although they have depth, on which both views agree."""
    agree = 0.0
    for k in (0, 1):
        out = np.where(views[k].depth > 0, 0.0, depths[k])
        if (out > 0).sum() >= ENOUGH / 2:
            pair = (replace(views[k], depth=out), replace(views[1 - k], depth=depths[1 - k]))
            excess = both_ways(pair, [as_given(pair)], MANY)[0].excess[0]
            agree += float((np.abs(excess) < TOLERANCES[1]).mean() * (out > 0).mean()) / 2
    return agree


def _without(view: View, values: Sequence[float]) -> View:
    return replace(view, depth=np.where(np.isin(view.depth, values), 0.0, view.depth)) if values else view


def _plateaus(depth: Array) -> list[float]:
    """Numbers that fill a connected part of a depth map each."""
    held = depth[depth > 0]
    values, counts = np.unique(held[:: max(1, len(held) // 20_000)], return_counts=True)
    largest = [k for k in np.argsort(-counts)[:MOST_PLATEAUS] if counts[k] >= max(PLATEAU * counts.sum(), 8)]
    return [float(values[k]) for k in largest if connected(depth == values[k], depth > 0)]


def _plateau(views: Views, bare: Views, value: float, carriers: tuple[int, ...], sample: int) -> Plateau | None:
    """What the other view says of one number in the first view, and of the same in the second where both carry it.

    None where it is neither contradicted nor far behind the rest.
    """
    rest = (_without(bare[0], [value]), _without(bare[1], [value]))
    held, others = views[0].depth, rest[0].depth[rest[0].depth > 0]
    if len(others) < ENOUGH:
        return None
    tolerance = max(0.02 if len(carriers) > 1 else 0.05, 3 * min(_step(view.depth) for view in bare) / value)
    looked_up = [_looked_up(views[k], views[1 - k], value) for k in range(len(carriers))]
    excess, met = (np.concatenate([parts[k] for parts in looked_up]) for k in (0, 1))
    enough = len(excess) >= ENOUGH / 2
    contradicted = float(((excess < -tolerance) | ((met > 0) & (excess > tolerance))).mean()) if enough else 0.0
    beyond = value / float(np.percentile(others, 98))
    if contradicted <= SUSPECT and beyond < FAR:
        return None
    among = others.min() < value < others.max()
    return Plateau(
        sample, carriers, value, float((held == value).sum() / (held > 0).sum()), beyond, contradicted,
        met=float((np.abs(excess) <= tolerance).mean()) if enough else math.nan,
        rest=agreement_of(rest, as_given(rest)).agree[1] if comparable(rest) else 0.0,
        apart=math.inf if among else float(max(value / others.max(), others.min() / value)),
    )  # fmt: skip


def _step(depth: Array) -> float:
    """The usual distance to the next depth: that of whole numbers, next to nothing in a map of floats."""
    held = depth[depth > 0]
    steps = np.diff(np.unique(held[:: max(1, len(held) // 20_000)]))
    return float(np.median(steps)) if len(steps) else math.inf


def _looked_up(view: View, other: View, value: float) -> tuple[Array, Array]:
    """The excess of every pixel of the plateau that lands, and whether it is the same number that it meets there."""
    alone = replace(view, depth=np.where(view.depth == value, value, 0.0))
    way = both_ways((alone, other), [as_given((alone, other))], MANY)[0]
    landed = np.isfinite(way.excess[0])
    u, v = (np.rint(to[0][landed]).astype(np.int64) for to in way.to)
    height, width = other.depth.shape
    met = other.depth[np.clip(v, 0, height - 1), np.clip(u, 0, width - 1)] == value
    return way.excess[0][landed], met.astype(np.float64)


MOST_FRAMES, MOST_PAIRS, MOST_SEARCHED = 8, 4, 2


def measure_views(batch: Any) -> ViewsSeen | None:
    """What the batch itself shows of its views; None where it is no batch of two or more views.

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
    neighbours = [(b, s) for b in range(samples) for s in range(count - 1)]
    for b, s in neighbours[:: max(1, math.ceil(len(neighbours) / MOST_PAIRS))]:
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
