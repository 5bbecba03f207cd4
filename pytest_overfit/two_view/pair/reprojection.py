"""Do two depth maps and their cameras describe one scene? Every valid pixel of one view is looked up in the other.

Conventions: intrinsics in pixels with pixel centres at integers; world2cam (3, 4) or (4, 4), OpenCV axes; z-depth in
any one unit, 0 = invalid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pytest_overfit.two_view.pair.pair_files import FloatArray

TOLERANCE = 0.03  # relative depth difference that still counts as one surface
_WINDOW = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


class View(Protocol):
    """`depth` (H, W), of any size, `intrinsics` (3, 3), `world2cam` (3, 4) or (4, 4)."""

    @property
    def depth(self) -> npt.NDArray[Any]: ...

    @property
    def intrinsics(self) -> npt.NDArray[Any]: ...

    @property
    def world2cam(self) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class Agreement:
    """What becomes of the valid pixels of view a when they are looked up in view b.

    `valid` counts them; `projected` is the share of them that lands on valid depth of b. The next three are shares of
    the projected ones and sum to 1: `agree` (on b's surface, within the tolerance), `occluded` (behind it, which is
    legitimate) and `violation` (in front of it: b would see the point and sees through it instead).
    `error` is the median of |z - z_b| / z_b over those that are within 4 tolerances of b's surface; NaN if none are.
    """

    valid: int
    projected: float
    agree: float
    occluded: float
    violation: float
    error: float


def view_agreement(a: View, b: View) -> Agreement:
    """Look the valid pixels of view a up in view b."""
    found = look_up(a, b)
    excess = found.excess[np.isfinite(found.excess)]
    if len(excess) == 0:
        return Agreement(found.valid, 0.0, 0.0, 0.0, 0.0, float("nan"))
    close = np.abs(excess) < 4 * TOLERANCE
    return Agreement(
        valid=found.valid,
        projected=len(excess) / found.valid,
        agree=float((np.abs(excess) < TOLERANCE).mean()),
        occluded=float((excess >= TOLERANCE).mean()),
        violation=float((excess <= -TOLERANCE).mean()),
        error=float(np.median(np.abs(excess[close]))) if close.any() else float("nan"),
    )


@dataclass(frozen=True)
class Lookup:
    """The `valid` pixels of view a that land in the image of view b, one entry each.

    `rows` and `columns` in a; `u` (columns), `v` (rows) and depth `z` in b, not rounded; `excess` (z - z_b) / z_b, NaN
    where b has no depth there.
    """

    valid: int
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    u: FloatArray
    v: FloatArray
    z: FloatArray
    excess: FloatArray


def look_up(a: View, b: View) -> Lookup:
    """Where the valid pixels of view a lie in view b, and how far behind its surface."""
    rows, columns = np.nonzero(a.depth > 0)
    valid = len(rows)
    world = unproject(a.depth, a.intrinsics, a.world2cam, rows, columns)
    u, v, z = project(world, b.intrinsics, b.world2cam)
    height, width = b.depth.shape
    inside = (z > 0) & (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
    rows, columns, u, v, z = rows[inside], columns[inside], u[inside], v[inside], z[inside]
    at_u, at_v = np.rint(u).astype(np.int64), np.rint(v).astype(np.int64)
    met = b.depth[at_v, at_u] > 0
    excess = np.full(len(z), np.nan)
    excess[met] = _nearest_excess(np.asarray(b.depth, dtype=np.float64), at_u[met], at_v[met], z[met])
    return Lookup(valid, rows, columns, u, v, z, excess)


def degrees_between(rotation: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """The angle between two rotations (3, 3): of both parts, since arccos alone resolves 0.03 degrees in float32."""
    turn = np.asarray(rotation @ other.T, dtype=np.float64)
    sine = np.linalg.norm([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    return float(np.degrees(np.arctan2(sine, np.trace(turn) - 1)))


def unproject(
    depth: npt.NDArray[Any],
    intrinsics: npt.NDArray[Any],
    world2cam: npt.NDArray[Any],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> FloatArray:
    """World points (3, N) of the pixels (`columns`, `rows`)."""
    k = np.asarray(intrinsics, dtype=np.float64)
    pose = np.asarray(world2cam, dtype=np.float64)
    z = depth[rows, columns].astype(np.float64)
    local = np.stack([(columns - k[0, 2]) * z / k[0, 0], (rows - k[1, 2]) * z / k[1, 1], z])
    return np.asarray(np.linalg.solve(pose[:3, :3], local - pose[:3, 3:4]), dtype=np.float64)


def project(
    world: FloatArray, intrinsics: npt.NDArray[Any], world2cam: npt.NDArray[Any]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Pixel columns u, rows v and depths z of world points (3, N); u and v are -1e9 behind the camera."""
    k = np.asarray(intrinsics, dtype=np.float64)
    pose = np.asarray(world2cam, dtype=np.float64)
    local = pose[:3, :3] @ world + pose[:3, 3:4]
    z = local[2]
    ahead = np.where(z > 1e-9, z, 1.0)
    u = np.where(z > 1e-9, k[0, 0] * local[0] / ahead + k[0, 2], -1e9)
    v = np.where(z > 1e-9, k[1, 1] * local[1] / ahead + k[1, 2], -1e9)
    return u, v, z


def _nearest_excess(
    depth: FloatArray, columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], z: FloatArray
) -> FloatArray:
    """Relative excess (z - z_b) / z_b with the smallest magnitude among the valid pixels of a 3 x 3 window.

    At a depth edge, and on ground seen at a grazing angle, rounding to one pixel alone would read as a contradiction.
    """
    height, width = depth.shape
    best = np.full(len(z), np.inf)
    for dv, du in _WINDOW:
        seen = depth[np.clip(rows + dv, 0, height - 1), np.clip(columns + du, 0, width - 1)]
        excess = np.where(seen > 0, z / np.where(seen > 0, seen, 1.0) - 1.0, np.inf)
        best = np.where(np.abs(excess) < np.abs(best), excess, best)
    return best
