"""Do the views of a batch agree under its cameras, and if not, with which one thing changed would they?

Shape legend: B samples, S views, H W image size, N looked-up pixels, M trials. Conventions as in ``pair.geometry``:
world2cam, OpenCV axes, z-depth, 0 = invalid, pixel centres at integers (that they lie half a pixel off hardly shows).
Everything is numpy in float64 on the CPU: taking the batch there is a host-device sync.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pytest_overfit.diagnose.views import (
    TOLERANCES,
    Agreement,
    Change,
    ConfidencePredicted,
    DepthPredicted,
    Frame,
    Pair,
    Picture,
    Plateau,
    Points,
    ViewsPredicted,
    ViewsSeen,
)

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Image = npt.NDArray[Any]
FEW, MANY = 250, 1000  # pixels of a view that are looked up in a search, and to judge
ENOUGH = 60  # pixels for a statistic
MOST_FRAMES, MOST_PAIRS, MOST_SEARCHED = 8, 4, 2
RELIEF = 1.03  # far depth over near depth of a view
SOUND = 0.75  # score from which no change is clearly better,
SOUND_SURFACES = 0.8, 0.55  # or share of the surfaces that agree, and score for that
PROMISING = 0.35  # score of a change that may well be the one
MATCHED = 0.02  # relative depth difference of pixels that see one point
WIDTHS = (0.01, 0.05, 0.25)  # of the tents that guide a search towards agreement
KEYS = ("depths", "extrinsics", "intrinsics")


def look_at_views(batch: Any) -> ViewsSeen | None:
    """What the batch itself shows of its views; None where it is no batch of two or more views.

    Example:
        >>> look_at_views(batch).pairs[0].given.agree
        (0.93, 0.97, 1.0)

    Args:
        batch: `depths` (B, S, H, W), `extrinsics` (B, S, 3, 4) or (B, S, 4, 4) world2cam, `intrinsics` (B, S, 3, 3)
            pixels; where there are any, `images` (B, S, C, H, W), `point_masks` (B, S, H, W), and `world_points` and
            `cam_points` (B, S, H, W, 3).
    """
    if not _is_two_view(batch):
        return None
    samples, count, height, width = batch["depths"].shape
    masked = _fits(batch.get("point_masks"), batch["depths"].shape)
    places = [(b, s) for b in range(samples) for s in range(count)]
    frames = [_frame(batch, *place, masked) for place in places[:MOST_FRAMES]]
    pairs, plateaus, searched = [], [], 0
    for b, s in _thinned([(b, s) for b in range(samples) for s in range(count - 1)], MOST_PAIRS):
        views = _view(batch, b, s, masked), _view(batch, b, s + 1, masked)
        if not _comparable(views):
            continue
        bare, found = _without_plateaus(views, b, s)
        if any(plateau.contradicted > SUSPECT for plateau in found):
            left_out = _left_out(views, (_depth_of(batch, b, s), _depth_of(batch, b, s + 1)))
            found = [replace(plateau, left_out=left_out) for plateau in found]
        plateaus += found
        pairs.append(_pair(bare, b, s, search=searched < MOST_SEARCHED))
        searched += bool(pairs[-1].changes or pairs[-1].picture)
    return ViewsSeen(
        samples, count, height, width, tuple(frames), tuple(pairs), tuple(plateaus),
        points=tuple(_points(batch, masked)), masked=masked,
    )  # fmt: skip


def _is_two_view(batch: Any) -> bool:
    if not isinstance(batch, Mapping) or not all(isinstance(batch.get(key), Tensor) for key in KEYS):
        return False
    depths, extrinsics, intrinsics = (batch[key] for key in KEYS)
    if depths.dim() != 4 or depths.shape[1] < 2 or min(depths.shape) < 1 or min(depths.shape[2:]) < 8:
        return False
    lead = tuple(depths.shape[:2])
    return (
        all(tensor.is_floating_point() for tensor in (depths, extrinsics, intrinsics))
        and tuple(extrinsics.shape) in ((*lead, 3, 4), (*lead, 4, 4))
        and tuple(intrinsics.shape) == (*lead, 3, 3)
    )


def _fits(tensor: Any, shape: Sequence[int]) -> bool:
    return isinstance(tensor, Tensor) and tuple(tensor.shape) == tuple(shape)


def _thinned(places: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    step = max(1, math.ceil(len(places) / most))
    return places[::step]


def _numbers(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().double().numpy(), dtype=np.float64)


# --- one view ---


@dataclass(frozen=True)
class _View:
    """`depth` (H, W), 0 where it does not count; `image` (C, H, W) or None; `intrinsics` (3, 3); `pose` (4, 4)."""

    depth: Array
    image: Image | None
    intrinsics: Array
    pose: Array


Views = tuple[_View, _View]


def _view(batch: Mapping[str, Any], b: int, s: int, masked: bool) -> _View:
    depth, pose = _depth_of(batch, b, s), np.eye(4)
    if masked:
        depth = np.where(_mask_of(batch, b, s), depth, 0.0)
    pose[:3] = _numbers(batch["extrinsics"][b, s])[:3]
    images, (samples, count, height, width) = batch.get("images"), batch["depths"].shape
    pictured = isinstance(images, Tensor) and images.dim() == 5 and images.shape[:2] == (samples, count)
    image = None
    if isinstance(images, Tensor) and pictured and images.shape[3:] == (height, width):
        image = images[b, s].detach().cpu().float().numpy()
    return _View(depth, image, _numbers(batch["intrinsics"][b, s]), pose)


def _depth_of(batch: Mapping[str, Any], b: int, s: int) -> Array:
    depth = _numbers(batch["depths"][b, s])
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)


def _mask_of(batch: Mapping[str, Any], b: int, s: int) -> Flags:
    return np.asarray(batch["point_masks"][b, s].detach().cpu().bool().numpy(), dtype=np.bool_)


def _usable(view: _View) -> bool:
    """Enough depth, a rotation, and a pinhole."""
    rotation = view.pose[:3, :3]
    sound = np.isfinite(view.pose).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() < 0.01
    enough = int((view.depth > 0).sum()) >= ENOUGH
    return bool(sound) and enough and _pinhole(view.intrinsics, view.depth.shape[1])


def _comparable(views: Views) -> bool:
    """Two usable views of something with relief, not one image twice: made up, or repeated by mistake."""
    if not all(_usable(view) for view in views):
        return False
    first, second = views[0].image, views[1].image
    if first is not None and second is not None and bool((first == second).all()):
        return False
    spans = (np.percentile(_pixels(view.depth, MANY)[2], (5, 95)) for view in views)
    return any(high > RELIEF * low for low, high in spans)


def _pinhole(K: Array, width: int) -> bool:
    """As it should be, transposed, or in shares of the image size."""
    if not np.isfinite(K).all() or K[2, 2] != 1 or min(abs(K[0, 0]), abs(K[1, 1])) <= 0:
        return False
    skew = max(abs(K[0, 1]), abs(K[1, 0])) <= 0.05 * abs(K[0, 0])
    wide = abs(K[0, 0]) >= 0.1 * width or (0.2 < K[0, 2] < 0.8 and 0.2 < K[1, 2] < 0.8)
    return bool(skew and wide and (not K[2, :2].any() or not K[:2, 2].any()))


def _frame(batch: Mapping[str, Any], b: int, s: int, masked: bool) -> Frame:
    depth = _numbers(batch["depths"][b, s])
    height, width = depth.shape
    counts = _mask_of(batch, b, s) if masked else depth > 0
    without, empty = 0.0, 0.0
    if masked and (missing := counts & (depth <= 0)).any():
        values, often = np.unique(depth[missing], return_counts=True)
        empty = float(values[often.argmax()])
        same = counts & (depth == empty)
        without = float(same.sum() / counts.sum()) if _connected(same, counts) else 0.0
    K = _numbers(batch["intrinsics"][b, s])
    principal = (float(K[0, 2] / width), float(K[1, 2] / height)) if _pinhole(K, width) else (math.nan, math.nan)
    return Frame(b, s, float(counts.mean()), without, empty, principal)


def _connected(part: Flags, whole: Flags) -> bool:
    """Neighbours of the part belong to it far more often than chance would have it: a region, not noise."""
    share = part.sum() / whole.sum()
    left, right = part[:, :-1] & whole[:, 1:], part[:, 1:]
    return bool(left.any() and (left & right).sum() / left.sum() >= (1 + share) / 2)


def _points(batch: Mapping[str, Any], masked: bool) -> Iterator[Points]:
    """Points of the first sample against those of its depths and cameras."""
    for key in ("world_points", "cam_points"):
        if not _fits(batch.get(key), (*batch["depths"].shape, 3)):
            continue
        held, made = [], []
        for s in range(batch["depths"].shape[1]):
            view = _view(batch, 0, s, masked)
            if not _usable(view):
                return
            u, v, z = _pixels(view.depth, FEW)
            local = _rays(view.intrinsics[None], u, v)[0] * z
            shift = view.pose[:3, 3:] if key == "world_points" else 0.0
            turn = np.linalg.inv(view.pose[:3, :3]) if key == "world_points" else np.eye(3)
            made.append(turn @ (local - shift))
            held.append(_numbers(batch[key][0, s])[v.astype(int), u.astype(int)].T)
        ours, theirs = np.concatenate(made, 1), np.concatenate(held, 1)
        sizes = np.linalg.norm(ours, axis=0)
        if not np.isfinite(theirs).all() or sizes.min() <= 0:
            continue
        factor = float(np.median(np.linalg.norm(theirs, axis=0) / sizes))
        if factor > 0:
            off = np.linalg.norm(theirs - factor * ours, axis=0) / (factor * sizes)
            yield Points(key, factor, float(np.median(off)))


# --- looking up one view in another, under M trials at once ---


@dataclass(frozen=True)
class _Trial:
    """What two views would be with one thing changed: depths are first remade by name, then multiplied by `scales`.

    `relative` (4, 4) takes points of the first camera to the second.
    """

    name: str
    view: int | None
    factor: float
    intrinsics: tuple[Array, Array]
    relative: Array
    scales: tuple[float, float] = (1.0, 1.0)
    remade: tuple[str, str] = ("", "")


Remake = Callable[[Array], Array]
TURNS: Mapping[str, Callable[[Image], Image]] = {
    "flipped left to right": lambda a: a[..., ::-1],
    "flipped upside down": lambda a: a[..., ::-1, :],
    "turned by half a turn": lambda a: a[..., ::-1, ::-1],
    "transposed": lambda a: a.swapaxes(-1, -2),
}
FORMS: Mapping[str, Callable[[Array, Array], Array]] = {
    "reciprocal": lambda z, _: np.where(z > 0, 1 / np.where(z > 0, z, 1.0), 0.0),
    "exponential": lambda z, _: np.where(z > 0, np.exp(np.minimum(z, 50.0)), 0.0),
    "along the ray": lambda z, K: z / _lengths(z, K),
}


def _lengths(depth: Array, K: Array) -> Array:
    rows, columns = np.indices(depth.shape, dtype=np.float64)
    return np.asarray(np.hypot(np.hypot((columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]), 1.0))


def _remade(view: _View, name: str) -> Array:
    if name in TURNS:
        return TURNS[name](view.depth)
    return FORMS[name](view.depth, view.intrinsics) if name else view.depth


def _pixels(depth: Array, most: int) -> tuple[Array, Array, Array]:
    """Columns, rows and depths of at most `most` valid pixels, the same at every call."""
    rng = np.random.default_rng(0)
    flat = rng.integers(0, depth.size, 4 * most) if depth.size > 4 * most else np.empty(0, dtype=np.int64)
    flat = flat[depth[np.divmod(flat, depth.shape[1])] > 0][:most]
    if len(flat) < most:  # a small map, or few valid pixels
        flat = np.flatnonzero(depth > 0)
        flat = flat[rng.permutation(len(flat))[:most]]
    rows, columns = np.divmod(flat, depth.shape[1])
    return columns.astype(np.float64), rows.astype(np.float64), depth[rows, columns]


def _rays(K: Array, u: Array, v: Array) -> Array:
    """(M, 3, N) points of depth 1; skew and the third row of K (M, 3, 3) play no part."""
    x = (u - K[:, 0, 2, None]) / K[:, 0, 0, None]
    y = (v - K[:, 1, 2, None]) / K[:, 1, 1, None]
    return np.stack([x, y, np.ones_like(x)], axis=1)


@dataclass(frozen=True)
class _Landing:
    """(M, N) each: `excess` log(z / z_b), NaN where a pixel does not land on depth; where it came from, and landed."""

    excess: Array
    at: tuple[Array, Array]
    to: tuple[Array, Array]


def _land(
    depths: tuple[Array, Array], K: tuple[Array, Array], pose: Array, scales: tuple[Array, Array], pixels: int
) -> _Landing:
    """The first of two depths (H, W) is looked up in the second; K (M, 3, 3), `pose` (M, 4, 4), `scales` (M,) each."""
    (a, b), (K_a, K_b) = depths, K
    u, v, z = _pixels(a, pixels)
    points = pose[:, :3, :3] @ (_rays(K_a, u, v) * z * scales[0][:, None, None]) + pose[:, :3, 3:]
    ahead = points[:, 2] > 1e-9 * z.max(initial=0.0)
    depth = np.where(ahead, points[:, 2], 1.0)
    to_u = np.where(ahead, K_b[:, 0, 0, None] * points[:, 0] / depth + K_b[:, 0, 2, None], -9.0)
    to_v = np.where(ahead, K_b[:, 1, 1, None] * points[:, 1] / depth + K_b[:, 1, 2, None], -9.0)
    height, width = b.shape
    inside = ahead & (to_u > -0.5) & (to_u < width - 0.5) & (to_v > -0.5) & (to_v < height - 0.5)
    excess = np.full(inside.shape, np.nan)
    excess[inside] = _excess(b, to_u[inside], to_v[inside], (depth / scales[1][:, None])[inside])
    return _Landing(excess, (np.broadcast_to(u, to_u.shape), np.broadcast_to(v, to_v.shape)), (to_u, to_v))


def _excess(depth: Array, u: Array, v: Array, z: Array) -> Array:
    """log(z / z_b) between the four pixels around (u, v).

    On a plane 1 / z is linear in the pixels, so that is what is interpolated; across an edge, or beside a hole, it is
    the pixel nearest in depth that counts.
    """
    height, width = depth.shape
    u, v = np.clip(u, 0, width - 1), np.clip(v, 0, height - 1)
    i, j = np.minimum(u.astype(np.int64), width - 2), np.minimum(v.astype(np.int64), height - 2)
    du, dv = u - i, v - j
    around = np.stack([depth[j, i], depth[j, i + 1], depth[j + 1, i], depth[j + 1, i + 1]])
    weights = np.stack([(1 - du) * (1 - dv), du * (1 - dv), (1 - du) * dv, du * dv])
    held = around > 0
    ratio = z / np.where(held, around, 1.0)
    each = np.where(held, np.log(ratio), np.inf)
    nearest = np.take_along_axis(each, np.abs(each).argmin(0)[None], 0)[0]
    smooth = held.all(0) & (ratio.max(0) < 1.25 * ratio.min(0))
    between = np.log(np.where(smooth, (weights * ratio).sum(0), 1.0))
    found: Array = np.where(smooth, between, np.where(held.any(0), nearest, np.nan))
    return found


def _both_ways(views: Views, trials: Sequence[_Trial], pixels: int) -> tuple[_Landing, _Landing]:
    """First in second and second in first, under trials that remake the depths in one way."""
    first, second = (_remade(view, name) for view, name in zip(views, trials[0].remade, strict=True))
    K, K_other = (np.stack([trial.intrinsics[k] for trial in trials]) for k in (0, 1))
    scale, other = (np.array([trial.scales[k] for trial in trials]) for k in (0, 1))
    there = np.stack([trial.relative for trial in trials])
    back = np.asarray(np.linalg.inv(there), dtype=np.float64)
    ahead = _land((first, second), (K, K_other), there, (scale, other), pixels)
    return ahead, _land((second, first), (K_other, K), back, (other, scale), pixels)


def _closeness(excess: Array) -> Array:
    """(M,) 0 to 1: how near (M, N) looked-up pixels come to the surface; it guides from afar."""
    landed = np.isfinite(excess)
    size = np.abs(np.where(landed, excess, np.inf))
    tents = np.mean([np.maximum(0.0, 1 - size / width) for width in WIDTHS], axis=0)
    total = np.maximum(landed.sum(1), 1)
    close: Array = tents.sum(1) / total * np.sqrt(landed.mean(1))
    return close


def _rank(views: Views, trials: Sequence[_Trial]) -> Array:
    """The closeness of every trial."""
    ranks = np.zeros(len(trials))
    for remade in dict.fromkeys(trial.remade for trial in trials):
        places = [k for k, trial in enumerate(trials) if trial.remade == remade]
        ways = _both_ways(views, [trials[k] for k in places], FEW)
        ranks[places] = _closeness(np.concatenate([way.excess for way in ways], axis=1))
    return ranks


def _agreement(views: Views, trial: _Trial, pictures: bool = False) -> Agreement:
    """How the views agree under one trial, in depth and colour; `pictures` are turned with the depths on demand."""
    ways = _both_ways(views, [trial], MANY)
    excess = np.concatenate([way.excess[0] for way in ways])
    landed = excess[np.isfinite(excess)]
    total = max(len(landed), 1)
    agree = [float((np.abs(landed) < tolerance).sum() / total) for tolerance in TOLERANCES]
    images = [view.image for view in views if view.image is not None]
    if pictures:
        images = [TURNS[name](image) if name else image for name, image in zip(trial.remade, images, strict=True)]
    spots = _spots(ways, TOLERANCES[-1])
    colour = math.nan
    if len(images) == 2 and len(spots[0][0]) >= ENOUGH:
        colour = _correlation(_colours(images[0], *spots[0]), _colours(images[1], *spots[1]))
    before = float((landed < -TOLERANCES[-1]).sum() / total)
    return Agreement(len(landed) / max(len(excess), 1), (agree[0], agree[1], agree[2]), before, colour, len(excess))


Spots = tuple[tuple[Array, Array], tuple[Array, Array]]


def _spots(ways: tuple[_Landing, _Landing], tolerance: float) -> Spots:
    """Columns and rows, in the first and in the second view, of what both see."""
    (ahead, there), (back, here) = ((way, np.abs(way.excess[0]) < tolerance) for way in ways)
    first = [np.concatenate([ahead.at[k][0][there], back.to[k][0][here]]) for k in (0, 1)]
    second = [np.concatenate([ahead.to[k][0][there], back.at[k][0][here]]) for k in (0, 1)]
    return (first[0], first[1]), (second[0], second[1])


def _colours(image: Image, u: Array, v: Array) -> Array:
    """(C, N) colours between the pixels of an image (C, H, W), at its border the nearest."""
    height, width = image.shape[-2:]
    u, v = np.clip(u, 0, width - 1), np.clip(v, 0, height - 1)
    i, j = np.minimum(u.astype(np.int64), width - 2), np.minimum(v.astype(np.int64), height - 2)
    du, dv = u - i, v - j
    upper = (1 - du) * image[:, j, i] + du * image[:, j, i + 1]
    lower = (1 - du) * image[:, j + 1, i] + du * image[:, j + 1, i + 1]
    return np.asarray((1 - dv) * upper + dv * lower, dtype=np.float64)


def _correlation(a: Array, b: Array) -> float:
    """Of colours (C, N), each channel around its own mean; NaN without texture."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    deviation = math.sqrt(float((a * a).mean() * (b * b).mean()))
    return float((a * b).mean() / deviation) if deviation > 4e-4 else math.nan


# --- which change would make them agree ---


def _inverted(pose: Array) -> Array:
    return np.asarray(np.linalg.inv(pose), dtype=np.float64)


def _opposite(pose: Array) -> Array:
    changed: Array = pose.copy()
    changed[:3, 3] *= -1
    return changed


def _transposed(pose: Array) -> Array:
    changed: Array = pose.copy()
    changed[:3, :3] = pose[:3, :3].T
    return changed


def _from_centre(pose: Array) -> Array:
    changed: Array = pose.copy()
    changed[:3, 3] = -pose[:3, :3] @ pose[:3, 3]
    return changed


GL, LEFT_HANDED = np.diag([1.0, -1, -1, 1]), np.diag([1.0, -1, 1, 1])
UP_LEFT, PACKED = np.diag([-1.0, -1, 1, 1]), np.eye(4)[[1, 0, 2, 3]]
# The likelier first: among equals the first is named.
POSES: Mapping[str, Remake] = {
    "inverted": _inverted,
    "OpenGL": lambda pose: GL @ pose,
    "inverted OpenGL": lambda pose: GL @ _inverted(pose),
    "half inverted": lambda pose: _opposite(_transposed(pose)),
    "rotation transposed": _transposed,
    "translation negated": _opposite,
    "translation is the centre": _from_centre,
    "PyTorch3D": lambda pose: UP_LEFT @ pose,
    "left-handed": lambda pose: LEFT_HANDED @ pose,
    "OpenGL world": lambda pose: pose @ GL,
    "rows swapped": lambda pose: PACKED @ pose,
}
CENTRED, OFF_CENTRE = "principal point at the centre", 0.08  # of the image size


def _trials(views: Views, given: _Trial) -> Iterator[_Trial]:
    """The given views with one thing changed, in all of them or in one; those with a factor aside."""
    square = views[0].depth.shape[0] == views[0].depth.shape[1]
    for view in (None, 0, 1):
        for name, change in POSES.items():
            first, second = (change(one.pose) if view in (None, k) else one.pose for k, one in enumerate(views))
            relative = second @ _inverted(first)
            if _differs(relative, given.relative):
                yield replace(given, name=name, view=view, relative=relative)
        for name in (*TURNS, *FORMS) if view is None else TURNS:
            if square or name != "transposed":
                both = (name if view in (None, 0) else "", name if view in (None, 1) else "")
                yield replace(given, name=name, view=view, remade=both)
    for name, remake in _intrinsics(*views[0].depth.shape).items():
        if name != CENTRED or any(_off_centre(view) for view in views):
            K = (remake(views[0].intrinsics), remake(views[1].intrinsics))
            yield replace(given, name=name, intrinsics=K)


def _intrinsics(height: int, width: int) -> Mapping[str, Remake]:
    middle = (width - 1) / 2, (height - 1) / 2
    return {
        "intrinsics in shares": lambda K: np.diag([width, height, 1.0]) @ K,
        "intrinsics transposed": lambda K: K.T,
        "intrinsics y first": lambda K: np.array([[K[1, 1], 0.0, K[1, 2]], [0.0, K[0, 0], K[0, 2]], [0.0, 0.0, 1.0]]),
        CENTRED: lambda K: np.array([[K[0, 0], 0.0, middle[0]], [0.0, K[1, 1], middle[1]], [0.0, 0.0, 1.0]]),
    }


def _differs(pose: Array, other: Array) -> bool:
    """By more than poses are off: by five degrees, or by half of the baseline."""
    turned = np.linalg.norm(pose[:3, :3] - other[:3, :3]) > 2 * math.sqrt(2) * math.sin(math.radians(2.5))
    moved = np.linalg.norm(pose[:3, 3] - other[:3, 3]) > 0.5 * np.linalg.norm(other[:3, 3])
    return bool(turned or moved)


def _off_centre(view: _View) -> bool:
    height, width = view.depth.shape
    off = view.intrinsics[0, 2] / width - 0.5, view.intrinsics[1, 2] / height - 0.5
    return bool(max(abs(off[0]), abs(off[1])) > OFF_CENTRE)


def _scaled_baseline(given: _Trial, factor: float) -> _Trial:
    relative = given.relative.copy()
    relative[:3, 3] *= factor
    return replace(given, name="baseline", factor=factor, relative=relative)


def _scaled_intrinsics(given: _Trial, factor: float) -> _Trial:
    first, second = (np.diag([factor, factor, 1.0]) @ K for K in given.intrinsics)
    return replace(given, name="intrinsics scaled", factor=factor, intrinsics=(first, second))


def _scaled_depth(given: _Trial, factor: float) -> _Trial:
    first, second = (scale * (factor if given.view == k else 1.0) for k, scale in enumerate(given.scales))
    return replace(given, name="depth scaled", factor=factor, scales=(first, second))


Scaled = Callable[[_Trial, float], _Trial]
SCALES: tuple[tuple[Scaled, float, int], ...] = ((_scaled_baseline, 1e4, 93), (_scaled_intrinsics, 8.0, 25))
RESCALED: Mapping[str, Scaled] = {
    "baseline": _scaled_baseline, "intrinsics scaled": _scaled_intrinsics, "depth scaled": _scaled_depth,
}  # fmt: skip


def _peaks(views: Views, given: _Trial, scaled: Scaled, most: float, steps: int) -> Iterator[_Trial]:
    """The best factors, 1 / most to most, of a grid that is refined twice."""
    grid = np.geomspace(1 / most, most, steps)
    ranks = _rank(views, [scaled(given, float(factor)) for factor in grid])
    padded = np.pad(ranks, 1)
    tops = np.flatnonzero((ranks > 0) & (ranks >= padded[:-2]) & (ranks > padded[2:]))
    ratio = grid[1] / grid[0]
    for top in sorted(tops, key=lambda k: -float(ranks[k]))[:3]:
        factor = float(grid[top])
        for reach in (ratio, ratio**0.25):
            finer = factor * np.geomspace(1 / reach, reach, 9)
            factor = float(finer[_rank(views, [scaled(given, float(f)) for f in finer]).argmax()])
        yield scaled(given, factor)


def _depth_factors(views: Views, given: _Trial) -> Iterator[_Trial]:
    """Depth of one view in another unit: looked up there from the other, it is off by one factor everywhere."""
    for view, way in zip((1, 0), _both_ways(views, [given], FEW), strict=True):
        if np.isfinite(way.excess).sum() >= ENOUGH:
            yield _scaled_depth(replace(given, view=view), float(np.exp(np.nanmedian(way.excess))))


def _changes(views: Views, given: _Trial) -> tuple[Change, ...]:
    """The best three changes, the best first; among equals the likelier, and all views before one."""
    trials = [*_trials(views, given), *_depth_factors(views, given)]
    for scaled, most, steps in SCALES:
        trials += _peaks(views, given, scaled, most, steps)
    found = []
    for k in sorted(np.argsort(-_rank(views, trials))[:12]):
        turned = views[0].image is not None and any(name in TURNS for name in trials[k].remade)
        for pictures in (False, True) if turned else (False,):
            found.append((trials[k], _agreement(views, trials[k], pictures), pictures))
    best = max(agreement.score for _, agreement, _ in found)
    found.sort(key=lambda one: -min(one[1].score, 0.97 * best))
    return tuple(_change(views, *one) for one in found[:3])


def _change(views: Views, trial: _Trial, agreement: Agreement, pictures: bool) -> Change:
    beside = 0.0
    if trial.name in RESCALED:
        beside = max(_agreement(views, RESCALED[trial.name](trial, by)).score for by in (1.5, 1 / 1.5))
    chance = _chance(views, trial) if math.isnan(agreement.colour) else 0.0
    return Change(trial.name, trial.view, trial.factor, agreement, pictures, beside, chance)


def _chance(views: Views, trial: _Trial) -> float:
    """The agreement, 0 to 1, of the same cameras with depth that means nothing: that of the second view, turned."""
    first, second = (_remade(view, name) for view, name in zip(views, trial.remade, strict=True))
    plain = replace(trial, remade=("", ""))
    others = [
        (replace(views[0], depth=first), replace(views[1], depth=TURNS[turn](second))) for turn in list(TURNS)[:3]
    ]
    return max(
        sum(agreed.agree) / len(TOLERANCES) * math.sqrt(agreed.landed)
        for agreed in (_agreement((replace(a, image=None), b), plain) for a, b in others)
    )


def _pair(views: Views, sample: int, first: int, *, search: bool) -> Pair:
    views = _centred(views)
    given = _as_given(views)
    agreement = _agreement(views, given)
    surfaces, less = SOUND_SURFACES
    sound = agreement.score >= (less if agreement.agree[1] >= surfaces else SOUND)
    changes = _changes(views, given) if search and not sound else ()
    best = changes[0].agreement.score if changes else 0.0
    nudged = _nudged(views, given) if best > 1.3 * agreement.score else agreement.score
    explained = best > max(PROMISING, 1.5 * agreement.score)
    picture = _picture(views, given) if search and not explained else None
    return Pair(sample, first, first + 1, agreement, changes, nudged, picture)


NUDGES = (1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25)  # degrees, and tenths of the baseline


def _nudged(views: Views, given: _Trial) -> float:
    """The score that cameras within two or three degrees of the given ones reach: poses are never exact."""
    best = given
    for step in NUDGES:
        trials = [best, *_nudges(best, step)]
        best = trials[int(_rank(views, trials).argmax())]
    return max(_agreement(views, best).score, _agreement(views, given).score)


def _nudges(trial: _Trial, step: float) -> Iterator[_Trial]:
    angle, shift = math.radians(step), 0.1 * step * float(np.linalg.norm(trial.relative[:3, 3]))
    for k, sign in ((k, sign) for k in range(3) for sign in (-1, 1)):
        axis = np.zeros(3)
        axis[k] = sign
        moved, turned = trial.relative.copy(), np.eye(4)
        moved[:3, 3] += shift * axis
        turned[:3, :3] += math.sin(angle) * np.cross(np.eye(3), -axis) + (1 - math.cos(angle)) * (
            np.outer(axis, axis) - np.eye(3)
        )
        yield replace(trial, relative=moved)
        yield replace(trial, relative=turned @ trial.relative)


def _centred(views: Views) -> Views:
    """Pixel centres at integers, if that is what the batch has; half a pixel off where the views agree better so."""
    half = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
    first, second = (replace(view, intrinsics=view.intrinsics - half) for view in views)
    ranks = _rank(views, [_as_given(views), _as_given((first, second))])
    return (first, second) if ranks[1] > ranks[0] else views


# --- do the images lie on the depths ---

SHIFTS = tuple(k / 20 for k in range(-7, 8))  # of the width and the height
ZOOMS = (0.5, 0.6, 0.7, 0.8, 1.25, 1.4, 1.7, 2.0)
FITTING = 0.95  # correlation of colours that needs no better
ASIDE = 0.03  # of the size: colours that fit no worse there have no texture


@dataclass(frozen=True)
class _Move:
    """Another place in the images for what the depths say: turned by name, zoomed about the centre, then shifted."""

    name: str
    view: int | None = None
    right: float = 0.0
    down: float = 0.0
    zoom: float = 1.0


def _picture(views: Views, given: _Trial) -> Picture | None:
    """The colours of what both views see, under the images as they are and under the best of all moves."""
    if views[0].image is None or views[1].image is None:
        return None
    images = views[0].image, views[1].image
    spots = _spots(_both_ways(views, [given], MANY), MATCHED)
    pixels = len(spots[0][0])
    if pixels < 2 * ENOUGH:
        return None
    chosen_by, judged_by = (_every_other(spots, k) for k in (0, 1))
    as_given = _fit(images, judged_by, _Move(""))
    if as_given is None or as_given[0] > FITTING:
        return None
    moves = list(_moves(images, chosen_by))
    off = np.array([1 - (_fit(images, chosen_by, move) or (-1.0, 0.0))[0] for move in moves])
    if not len(off) or off.min() > 0.5 * (1 - (_fit(images, chosen_by, _Move("")) or as_given)[0]):
        return None
    # Where there is little parallax many shifts fit almost alike: the smallest of them is named.
    best = min((moves[k] for k in np.flatnonzero(off <= 1.25 * off.min())), key=lambda m: abs(m.right) + abs(m.down))
    if best.name == "shifted":
        best = _refined(images, chosen_by, best)
    return _compared(images, _within(images, judged_by, best), best)


def _compared(images: tuple[Image, Image], spots: Spots, best: _Move) -> Picture | None:
    """The images as they are and after the best move, and what else would explain that, over the same pixels."""
    given, after = _fit(images, spots, _Move("")), _fit(images, spots, best)
    if given is None or after is None:
        return None
    beside = [_fit(images, spots, best, aside=by) for by in ((-ASIDE, 0), (ASIDE, 0), (0, -ASIDE), (0, ASIDE))]
    aside = np.mean([fit for fit in beside if fit is not None] or [(1.0, 0.0)], axis=0).tolist()
    nudges = [_Move("shifted", 1, a / 50, b / 50) for a in range(-3, 4) for b in range(-3, 4)]
    nearest = [nudges[k] for k in np.argsort(-_coarse_fits(images, spots, nudges))[:4]]
    return Picture(
        best.name, best.view, *given, *after, aside[0], aside[1],
        nudged=max([given[0], *(fit[0] for one in nearest if (fit := _fit(images, spots, one)))]),
        rough=max(_roughness(image, *spot) for image, spot in zip(images, spots, strict=True)),
        right=best.right, down=best.down, zoom=best.zoom, pixels=2 * len(spots[0][0]),
    )  # fmt: skip


def _within(images: tuple[Image, Image], spots: Spots, move: _Move) -> Spots:
    """The spots that both images still show after a move."""
    inside = [_inside(images[k], *_moved(move, k, spots[k], images[k])) for k in (0, 1)]
    (a, b), (c, d), both = *spots, inside[0] & inside[1]
    return (a[both], b[both]), (c[both], d[both])


def _every_other(spots: Spots, start: int) -> Spots:
    (a, b), (c, d) = spots
    return (a[start::2], b[start::2]), (c[start::2], d[start::2])


def _moves(images: tuple[Image, Image], spots: Spots) -> Iterator[_Move]:
    square = images[0].shape[-1] == images[0].shape[-2]
    for view in (None, 0, 1):
        yield from (_Move(name, view) for name in TURNS if square or name != "transposed")
        yield from (_Move("zoomed", view, zoom=zoom) for zoom in ZOOMS)
    yield _Move("exchanged")
    shifts = [(right, down) for right in SHIFTS for down in SHIFTS if (right, down) != (0.0, 0.0)]
    for view in (None, 0, 1):
        moves = [_Move("shifted", view, right, down) for right, down in shifts]
        fits = _coarse_fits(images, spots, moves)
        yield from (moves[k] for k in np.argsort(-fits)[:6])


def _refined(images: tuple[Image, Image], spots: Spots, move: _Move) -> _Move:
    """The shift once more, with steps of a half and a quarter of those of the search."""
    for step in (SHIFTS[1] - SHIFTS[0]) / 2, (SHIFTS[1] - SHIFTS[0]) / 4:
        near = [replace(move, right=move.right + a * step, down=move.down + b * step) for a, b in np.ndindex(3, 3)]
        near = [replace(one, right=one.right - step, down=one.down - step) for one in near]
        move = max((move, *near), key=lambda one: (_fit(images, spots, one) or (-1.0, 0.0))[0])
    return move


def _moved(move: _Move, k: int, spot: tuple[Array, Array], image: Image) -> tuple[Array, Array]:
    """Where in the image of view `k` the colour of a pixel now lies."""
    (u, v), (height, width) = spot, image.shape[-2:]
    if move.view not in (None, k):
        return u, v
    across, along = (width - 1) / 2, (height - 1) / 2
    if move.name == "transposed":
        return v, u
    if move.name in TURNS:
        u = width - 1 - u if move.name != "flipped upside down" else u
        return u, (height - 1 - v if move.name != "flipped left to right" else v)
    u = across + move.zoom * (u - across) + round(move.right * width)
    return u, along + move.zoom * (v - along) + round(move.down * height)


def _fit(
    images: tuple[Image, Image], spots: Spots, move: _Move, aside: tuple[float, float] = (0.0, 0.0)
) -> tuple[float, float] | None:
    """Correlation and median difference of the colours; None where fewer than half of the pixels have any.

    `aside` moves the second view on its own, by shares of its size and by a pixel at least.
    """
    if move.name == "exchanged":
        images = images[1], images[0]
    places = [_moved(move, k, spots[k], images[k]) for k in (0, 1)]
    by = [
        math.copysign(max(1, round(abs(a) * n)), a) if a else 0.0
        for a, n in zip(aside, images[1].shape[:0:-1], strict=True)
    ]
    places[1] = (places[1][0] + by[0], places[1][1] + by[1])
    inside = np.logical_and(*(_inside(image, *place) for image, place in zip(images, places, strict=True)))
    if inside.sum() < max(ENOUGH, len(inside) / 2):
        return None
    a, b = (_colours(image, u[inside], v[inside]) for image, (u, v) in zip(images, places, strict=True))
    correlation = _correlation(a, b)
    if math.isnan(correlation):
        return None
    return correlation, float(np.median(np.abs(a - b).mean(0)) / math.sqrt(a.std(1).mean() * b.std(1).mean()))


def _roughness(image: Image, u: Array, v: Array) -> float:
    """How badly colours are told from those a pixel around, in units of their variance: 1 is noise."""
    colours = _colours(image, u, v)
    around = np.mean([_colours(image, u + a, v + b) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))], axis=0)
    return float((colours - around).var(1).sum() / max(colours.var(1).sum(), 1e-12))


def _inside(image: Image, u: Array, v: Array) -> Flags:
    height, width = image.shape[-2:]
    found: Flags = (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
    return found


def _coarse_fits(images: tuple[Image, Image], spots: Spots, moves: Sequence[_Move]) -> Array:
    """(M,) correlations of the colours at the nearest pixels, of shifts alone: all at once, to choose among them."""
    colours, valid = [], np.ones(1, dtype=np.bool_)
    for k, image in enumerate(images):
        height, width = image.shape[-2:]
        by = [(round(m.right * width), round(m.down * height)) if m.view in (None, k) else (0, 0) for m in moves]
        u, v = (np.rint(spots[k][axis][:FEW]).astype(np.int64) + np.array(by)[:, axis, None] for axis in (0, 1))
        valid = valid & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        colours.append(image[:, np.clip(v, 0, height - 1), np.clip(u, 0, width - 1)])
    count = np.maximum(valid.sum(1), 1)[:, None]
    a, b = (np.where(valid, c - (c * valid).sum(2, keepdims=True) / count, 0.0) for c in colours)
    size = np.sqrt(np.einsum("cmn,cmn->m", a, a) * np.einsum("cmn,cmn->m", b, b))
    enough = (valid.mean(1) >= 0.5) & (size > 1e-9)
    return np.where(enough, np.einsum("cmn,cmn->m", a, b) / np.maximum(size, 1e-9), -1.0)


# --- depth that is no surface ---

PLATEAU = 0.02  # share of the valid pixels
MOST_PLATEAUS = 8  # of one view, the largest
SUSPECT, FAR = 0.2, 2.0  # share that is contradicted, and depth over the rest's, from which a plateau is of interest


def _without_plateaus(views: Views, b: int, s: int) -> tuple[Views, list[Plateau]]:
    """The views without what both carry as one number, and every plateau that was found in them."""
    first, second = (_plateaus(view.depth) for view in views)
    shared = [value for value in first if value in second]
    bare = (_without(views[0], shared), _without(views[1], shared))
    if not _comparable(bare):
        return views, []
    found = [_plateau(views, bare, value, (s, s + 1), b) for value in shared]
    alone = ([v for v in values if v not in shared][:2] for values in (first, second))
    for k, values in enumerate(alone):
        found += [_plateau((views[k], views[1 - k]), (bare[k], bare[1 - k]), v, (s + k,), b) for v in values]
    return bare, [plateau for plateau in found if plateau is not None]


def _left_out(views: Views, depths: tuple[Array, Array]) -> float:
    """The share of all pixels that do not count although they have depth, on which both views agree."""
    agree = 0.0
    for k in (0, 1):
        out = np.where(views[k].depth > 0, 0.0, depths[k])
        if (out > 0).sum() >= ENOUGH / 2:
            pair = (replace(views[k], depth=out), replace(views[1 - k], depth=depths[1 - k]))
            excess = _both_ways(pair, [_as_given(pair)], MANY)[0].excess[0]
            agree += float((np.abs(excess) < TOLERANCES[1]).mean() * (out > 0).mean()) / 2
    return agree


def _without(view: _View, values: Sequence[float]) -> _View:
    return replace(view, depth=np.where(np.isin(view.depth, values), 0.0, view.depth)) if values else view


def _plateaus(depth: Array) -> list[float]:
    """Numbers that fill a connected part of a depth map each."""
    held = depth[depth > 0]
    values, counts = np.unique(held[:: max(1, len(held) // 20_000)], return_counts=True)
    largest = [k for k in np.argsort(-counts)[:MOST_PLATEAUS] if counts[k] >= max(PLATEAU * counts.sum(), 8)]
    return [float(values[k]) for k in largest if _connected(depth == values[k], depth > 0)]


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
        rest=_agreement(rest, _as_given(rest)).agree[1] if _comparable(rest) else 0.0,
        apart=math.inf if among else float(max(value / others.max(), others.min() / value)),
    )  # fmt: skip


def _step(depth: Array) -> float:
    """The usual distance to the next depth: that of whole numbers, next to nothing in a map of floats."""
    held = depth[depth > 0]
    steps = np.diff(np.unique(held[:: max(1, len(held) // 20_000)]))
    return float(np.median(steps)) if len(steps) else math.inf


def _looked_up(view: _View, other: _View, value: float) -> tuple[Array, Array]:
    """The excess of every pixel of the plateau that lands, and whether it is the same number that it meets there."""
    alone = replace(view, depth=np.where(view.depth == value, value, 0.0))
    way = _both_ways((alone, other), [_as_given((alone, other))], MANY)[0]
    landed = np.isfinite(way.excess[0])
    u, v = (np.rint(to[0][landed]).astype(np.int64) for to in way.to)
    height, width = other.depth.shape
    met = other.depth[np.clip(v, 0, height - 1), np.clip(u, 0, width - 1)] == value
    return way.excess[0][landed], met.astype(np.float64)


def _as_given(views: Views) -> _Trial:
    K = (views[0].intrinsics, views[1].intrinsics)
    return _Trial("", None, 1.0, K, views[1].pose @ np.linalg.inv(views[0].pose))


# --- what a model predicts ---

MOST = 50_000  # pixels of a batch


def look_at_predictions(
    predicted: Mapping[str, Tensor], batch: Any, predicted_start: Mapping[str, Tensor] | None = None
) -> ViewsPredicted | None:
    """Predicted depth, confidence and cameras against the batch's; None where there are none, or no two-view batch.

    Args:
        predicted: by name, of which the last dotted part counts: `depth` and `depth_conf` (B, S, H, W) or
            (B, S, H, W, 1), `pose_enc` (B, S, 9) with the translation first.
        batch: as for `look_at_views`.
        predicted_start: the same before training, for what has grown since.
    """
    if not _is_two_view(batch):
        return None
    shape = tuple(batch["depths"].shape)
    truth = _numbers(batch["depths"]).reshape(shape[0], -1)
    counts = np.isfinite(truth) & (truth > 0)
    if _fits(batch.get("point_masks"), shape):
        counts &= batch["point_masks"].detach().cpu().bool().numpy().reshape(shape[0], -1)
    depths = _maps(predicted, ("depth", "depths"), shape)
    confidences = _maps(predicted, ("depth_conf", "depth_confidence"), shape)
    starts = _maps(predicted_start or {}, ("depth_conf", "depth_confidence"), shape)
    if counts.sum() < ENOUGH or not depths:
        return None
    errors = {name: np.abs(depth - truth) for name, depth in depths.items()}
    believed = []
    for name, confidence in confidences.items():
        beside = min(errors, key=lambda other: (other.rpartition(".")[0] != name.rpartition(".")[0], other))
        start = float(starts[name][counts].mean()) if name in starts else None
        believed.append(_confidence(name, confidence[counts], start, errors[beside][counts], truth[counts]))
    return ViewsPredicted(
        tuple(_depth(name, depth, truth, counts) for name, depth in depths.items()),
        tuple(believed),
        *_cameras(predicted, batch),
    )


def _maps(predicted: Mapping[str, Tensor], names: Sequence[str], shape: Sequence[int]) -> dict[str, Array]:
    """(B, S H W) each, by full name; those that are not finite are left to others."""
    found = {}
    for name, tensor in predicted.items():
        if name.rpartition(".")[2] in names and tuple(tensor.shape) in (tuple(shape), (*shape, 1)):
            values = _numbers(tensor).reshape(shape[0], -1)
            if np.isfinite(values).all():
                found[name] = values
    return found


def _depth(name: str, depth: Array, truth: Array, counts: Flags) -> DepthPredicted:
    factors, aligned = [], []
    for values, wanted, use in zip(depth, truth, counts, strict=True):
        if use.any():
            factor = float(np.median(values[use] / wanted[use]))
            factors.append(factor)
            aligned.append(np.abs(values[use] / (factor or 1.0) - wanted[use]) / wanted[use])
    p, g = depth[counts], truth[counts]
    logs = np.log(np.maximum(p, 1e-12)), np.log(g)
    varied = min(float(log.std()) for log in logs) > 1e-6
    return DepthPredicted(
        name,
        error=float(np.median(np.abs(p - g) / g)),
        factor=float(np.median(factors)),
        aligned=float(np.median(np.concatenate(aligned))),
        spread=float(np.median(np.abs(np.median(g) - g) / g)),
        correlation=float(np.corrcoef(*logs)[0, 1]) if varied else 0.0,
    )


def _confidence(name: str, values: Array, start: float | None, error: Array, truth: Array) -> ConfidencePredicted:
    relative = error / truth
    cost = min(float(np.median(values * error)), float(np.median(values * relative)))
    ranks = [np.argsort(np.argsort(numbers[:MOST])).astype(np.float64) for numbers in (values, error)]
    varied = min(float(numbers.std()) for numbers in (values, error)) > 0
    follows = float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if varied else 0.0
    return ConfidencePredicted(
        name, float(values.mean()), float(values.max()), start, float(np.median(relative)), cost, follows
    )


def _cameras(predicted: Mapping[str, Tensor], batch: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Length and error of the last predicted translations, relative to the batch's; None where they say nothing."""
    wanted = _numbers(batch["extrinsics"])[..., :3, 3]
    length = float(np.linalg.norm(wanted))
    for name in reversed(list(predicted)):
        if name.rpartition(".")[2] == "pose_enc" and tuple(predicted[name].shape) == (*wanted.shape[:2], 9):
            said = _numbers(predicted[name])[..., :3]
            if length > 1e-9 and np.isfinite(said).all():
                return float(np.linalg.norm(said)) / length, float(np.linalg.norm(said - wanted)) / length
    return None, None
