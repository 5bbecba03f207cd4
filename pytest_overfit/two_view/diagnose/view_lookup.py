"""One view of a batch, and what becomes of its pixels when they are looked up in another view.

Shape legend: B samples, S views, H W image size, N looked-up pixels, M trials. Conventions as in ``pair.reprojection``:
world2cam, OpenCV axes, z-depth, 0 = invalid, pixel centres at integers (that they lie half a pixel off hardly shows).
Everything is numpy in float64 on the CPU: taking the batch there is a host-device sync.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pytest_overfit.two_view.diagnose.views import TOLERANCES, Agreement

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Image = npt.NDArray[Any]
FEW, MANY = 250, 1000  # pixels of a view that are looked up in a search, and to judge
ENOUGH = 60  # pixels for a statistic
RELIEF = 1.03  # far depth over near depth of a view
MATCHED = 0.02  # relative depth difference of pixels that see one point
WIDTHS = (0.01, 0.05, 0.25)  # of the tents that guide a search towards agreement
KEYS = ("depths", "extrinsics", "intrinsics")


def is_two_view(batch: Any) -> bool:
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


def has_shape(tensor: Any, shape: Sequence[int]) -> bool:
    return isinstance(tensor, Tensor) and tuple(tensor.shape) == tuple(shape)


def to_numpy(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().double().numpy(), dtype=np.float64)


@dataclass(frozen=True)
class View:
    """`depth` (H, W), 0 where it does not count; `image` (C, H, W) or None; `intrinsics` (3, 3); `pose` (4, 4)."""

    depth: Array
    image: Image | None
    intrinsics: Array
    pose: Array


Views = tuple[View, View]


def view_of(batch: Mapping[str, Any], b: int, s: int, masked: bool) -> View:
    depth, pose = depth_of(batch, b, s), np.eye(4)
    if masked:
        depth = np.where(mask_of(batch, b, s), depth, 0.0)
    pose[:3] = to_numpy(batch["extrinsics"][b, s])[:3]
    images, (samples, count, height, width) = batch.get("images"), batch["depths"].shape
    pictured = isinstance(images, Tensor) and images.dim() == 5 and images.shape[:2] == (samples, count)
    image = None
    if isinstance(images, Tensor) and pictured and images.shape[3:] == (height, width):
        image = images[b, s].detach().cpu().float().numpy()
    return View(depth, image, to_numpy(batch["intrinsics"][b, s]), pose)


def depth_of(batch: Mapping[str, Any], b: int, s: int) -> Array:
    depth = to_numpy(batch["depths"][b, s])
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)


def mask_of(batch: Mapping[str, Any], b: int, s: int) -> Flags:
    return np.asarray(batch["point_masks"][b, s].detach().cpu().bool().numpy(), dtype=np.bool_)


def usable(view: View) -> bool:
    """Enough depth, a rotation, and a pinhole."""
    rotation = view.pose[:3, :3]
    sound = np.isfinite(view.pose).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() < 0.01
    enough = int((view.depth > 0).sum()) >= ENOUGH
    return bool(sound) and enough and pinhole(view.intrinsics, view.depth.shape[1])


def comparable(views: Views) -> bool:
    """Two usable views of something with relief, not one image twice: made up, or repeated by mistake."""
    if not all(usable(view) for view in views):
        return False
    first, second = views[0].image, views[1].image
    if first is not None and second is not None and bool((first == second).all()):
        return False
    spans = (np.percentile(pixels_of(view.depth, MANY)[2], (5, 95)) for view in views)
    return any(high > RELIEF * low for low, high in spans)


def pinhole(K: Array, width: int) -> bool:
    """As it should be, transposed, or in shares of the image size."""
    if not np.isfinite(K).all() or K[2, 2] != 1 or min(abs(K[0, 0]), abs(K[1, 1])) <= 0:
        return False
    skew = max(abs(K[0, 1]), abs(K[1, 0])) <= 0.05 * abs(K[0, 0])
    wide = abs(K[0, 0]) >= 0.1 * width or (0.2 < K[0, 2] < 0.8 and 0.2 < K[1, 2] < 0.8)
    return bool(skew and wide and (not K[2, :2].any() or not K[:2, 2].any()))


def connected(part: Flags, whole: Flags) -> bool:
    """Neighbours of the part belong to it far more often than chance would have it: a region, not noise."""
    share = part.sum() / whole.sum()
    left, right = part[:, :-1] & whole[:, 1:], part[:, 1:]
    return bool(left.any() and (left & right).sum() / left.sum() >= (1 + share) / 2)


@dataclass(frozen=True)
class Trial:
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


def remade_depth(view: View, name: str) -> Array:
    if name in TURNS:
        return TURNS[name](view.depth)
    return FORMS[name](view.depth, view.intrinsics) if name else view.depth


def pixels_of(depth: Array, most: int) -> tuple[Array, Array, Array]:
    """Columns, rows and depths of at most `most` valid pixels, the same at every call."""
    rng = np.random.default_rng(0)
    flat = rng.integers(0, depth.size, 4 * most) if depth.size > 4 * most else np.empty(0, dtype=np.int64)
    flat = flat[depth[np.divmod(flat, depth.shape[1])] > 0][:most]
    if len(flat) < most:  # a small map, or few valid pixels
        flat = np.flatnonzero(depth > 0)
        flat = flat[rng.permutation(len(flat))[:most]]
    rows, columns = np.divmod(flat, depth.shape[1])
    return columns.astype(np.float64), rows.astype(np.float64), depth[rows, columns]


def rays_of(K: Array, u: Array, v: Array) -> Array:
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
    u, v, z = pixels_of(a, pixels)
    points = pose[:, :3, :3] @ (rays_of(K_a, u, v) * z * scales[0][:, None, None]) + pose[:, :3, 3:]
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


def both_ways(views: Views, trials: Sequence[Trial], pixels: int) -> tuple[_Landing, _Landing]:
    """First in second and second in first, under trials that remake the depths in one way."""
    first, second = (remade_depth(view, name) for view, name in zip(views, trials[0].remade, strict=True))
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


def rank(views: Views, trials: Sequence[Trial]) -> Array:
    """The closeness of every trial."""
    ranks = np.zeros(len(trials))
    for remade in dict.fromkeys(trial.remade for trial in trials):
        places = [k for k, trial in enumerate(trials) if trial.remade == remade]
        ways = both_ways(views, [trials[k] for k in places], FEW)
        ranks[places] = _closeness(np.concatenate([way.excess for way in ways], axis=1))
    return ranks


def agreement_of(views: Views, trial: Trial, pictures: bool = False) -> Agreement:
    """How the views agree under one trial, in depth and colour; `pictures` are turned with the depths on demand."""
    ways = both_ways(views, [trial], MANY)
    excess = np.concatenate([way.excess[0] for way in ways])
    landed = excess[np.isfinite(excess)]
    total = max(len(landed), 1)
    agree = [float((np.abs(landed) < tolerance).sum() / total) for tolerance in TOLERANCES]
    images = [view.image for view in views if view.image is not None]
    if pictures:
        images = [TURNS[name](image) if name else image for name, image in zip(trial.remade, images, strict=True)]
    spots = spots_of(ways, TOLERANCES[-1])
    colour = math.nan
    if len(images) == 2 and len(spots[0][0]) >= ENOUGH:
        colour = correlate(colours_at(images[0], *spots[0]), colours_at(images[1], *spots[1]))
    before = float((landed < -TOLERANCES[-1]).sum() / total)
    return Agreement(len(landed) / max(len(excess), 1), (agree[0], agree[1], agree[2]), before, colour, len(excess))


Spots = tuple[tuple[Array, Array], tuple[Array, Array]]


def spots_of(ways: tuple[_Landing, _Landing], tolerance: float) -> Spots:
    """Columns and rows, in the first and in the second view, of what both see."""
    (ahead, there), (back, here) = ((way, np.abs(way.excess[0]) < tolerance) for way in ways)
    first = [np.concatenate([ahead.at[k][0][there], back.to[k][0][here]]) for k in (0, 1)]
    second = [np.concatenate([ahead.to[k][0][there], back.at[k][0][here]]) for k in (0, 1)]
    return (first[0], first[1]), (second[0], second[1])


def colours_at(image: Image, u: Array, v: Array) -> Array:
    """(C, N) colours between the pixels of an image (C, H, W), at its border the nearest."""
    height, width = image.shape[-2:]
    u, v = np.clip(u, 0, width - 1), np.clip(v, 0, height - 1)
    i, j = np.minimum(u.astype(np.int64), width - 2), np.minimum(v.astype(np.int64), height - 2)
    du, dv = u - i, v - j
    upper = (1 - du) * image[:, j, i] + du * image[:, j, i + 1]
    lower = (1 - du) * image[:, j + 1, i] + du * image[:, j + 1, i + 1]
    return np.asarray((1 - dv) * upper + dv * lower, dtype=np.float64)


def correlate(a: Array, b: Array) -> float:
    """Of colours (C, N), each channel around its own mean; NaN without texture."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    deviation = math.sqrt(float((a * a).mean() * (b * b).mean()))
    return float((a * b).mean() / deviation) if deviation > 4e-4 else math.nan


def as_given(views: Views) -> Trial:
    K = (views[0].intrinsics, views[1].intrinsics)
    return Trial("", None, 1.0, K, views[1].pose @ np.linalg.inv(views[0].pose))
