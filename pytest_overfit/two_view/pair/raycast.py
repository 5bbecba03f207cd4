"""A small vectorised ray caster: convex solids, balls and a ground plane, seen through a pinhole.

Rays are scaled so that their z in camera axes is 1: the ray parameter of a hit IS the z-depth, to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pytest_overfit.two_view.pair.pair_files import BoolArray, Camera, FloatArray, IntArray

GROUND, SKY = -1, -2


@dataclass(frozen=True)
class Solid:
    """A convex polyhedron: the points x with `normals` (P, 3) @ x <= `offsets` (P,); `corners` (N, 3) bound it.

    `axes` (3, 3) has the solid's own x, y, z as rows, `centre` (3,) their origin: its texture lives there.
    """

    normals: FloatArray
    offsets: FloatArray
    corners: FloatArray
    centre: FloatArray
    axes: FloatArray


@dataclass(frozen=True)
class Ball:
    """A ball with `centre` (3,) and `radius` in metres."""

    centre: FloatArray
    radius: float

    @property
    def corners(self) -> FloatArray:
        """The eight corners (8, 3) of its bounding box."""
        signs = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
        return np.asarray(self.centre + self.radius * signs, dtype=np.float64)


@dataclass(frozen=True)
class Hits:
    """What every ray meets: `depth` (H, W) z in metres (inf = sky), `body` (H, W) its index, GROUND or SKY, and
    `face` (H, W) the plane of a solid."""

    depth: FloatArray
    body: IntArray
    face: IntArray


def house(centre: FloatArray, size: tuple[float, float, float], yaw: float, ridge: float = 0.0) -> Solid:
    """A box standing on the ground, turned by `yaw` radians, with a gabled roof that rises by `ridge` metres.

    Faces 0..3 are the walls (+x, -x, +y, -y in its own axes), 4 is the floor, 5 and up are the roof.
    """
    width, length, height = size
    cos, sin = np.cos(yaw), np.sin(yaw)
    axes = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    local = [[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, -1]]
    reach = [width / 2, width / 2, length / 2, length / 2, 0.0]
    if ridge > 0:
        slope = np.hypot(ridge, width / 2)
        for side in (1.0, -1.0):
            local.append([side * ridge / slope, 0.0, width / 2 / slope])
            reach.append((height + ridge) * width / 2 / slope)
    else:
        local.append([0.0, 0.0, 1.0])
        reach.append(height)
    normals = np.array(local) @ axes
    box = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (0.0, height + ridge)])
    corners = centre + (box * [width / 2, length / 2, 1.0]) @ axes
    return Solid(normals, np.array(reach) + normals @ centre, corners, centre, axes)


def rays(camera: Camera, width: int, height: int, du: float = 0.0, dv: float = 0.0) -> FloatArray:
    """World directions (3, H, W) through the pixel centres, moved by (du, dv) pixels, with z = 1 in camera axes."""
    k = camera.intrinsics
    x = (np.arange(width) + du - k[0, 2]) / k[0, 0]
    y = (np.arange(height) + dv - k[1, 2]) / k[1, 1]
    turn = camera.cam2world[:3, :3]
    across = turn[:, 0, None, None] * x[None, None, :]
    down = turn[:, 1, None, None] * y[None, :, None]
    return np.asarray(across + down + turn[:, 2, None, None], dtype=np.float64)


def screen_window(camera: Camera, corners: FloatArray, width: int, height: int) -> tuple[slice, slice] | None:
    """The pixel rows and columns that the hull of `corners` (N, 3) can cover, or None where it is out of sight."""
    local = (corners - camera.cam2world[:3, 3]) @ camera.cam2world[:3, :3]
    if (local[:, 2] <= 0.05).all():
        return None
    if (local[:, 2] <= 0.05).any():
        return slice(0, height), slice(0, width)
    uv = (local @ camera.intrinsics.T)[:, :2] / local[:, 2:]
    left, top = np.floor(uv.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(uv.max(axis=0)).astype(int) + 2
    rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def enter_solid(solid: Solid, origin: FloatArray, ray: FloatArray) -> tuple[FloatArray, IntArray]:
    """Ray parameter (H, W) where `ray` (3, H, W) enters the solid (inf = misses it) and through which face."""
    shape = ray.shape[1:]
    enter, leave = np.full(shape, -np.inf), np.full(shape, np.inf)
    face = np.zeros(shape, dtype=np.int64)
    for index, (normal, offset) in enumerate(zip(solid.normals, solid.offsets, strict=True)):
        speed = np.tensordot(normal, ray, axes=1)
        at = (offset - np.tensordot(normal, origin, axes=1)) / np.where(np.abs(speed) < 1e-12, 1e-12, speed)
        inward = speed < 0
        later = inward & (at > enter)
        enter[later] = at[later]
        face[later] = index
        leave = np.where(inward, leave, np.minimum(leave, at))
    return np.where((enter < leave) & (enter > 1e-6), enter, np.inf), face


def enter_ball(ball: Ball, origin: FloatArray, ray: FloatArray) -> FloatArray:
    """Ray parameter (H, W) where `ray` (3, H, W) enters the ball; inf where it misses."""
    to_ball = ball.centre.reshape(3, 1, 1) - (origin if origin.ndim == 3 else origin.reshape(3, 1, 1))
    square = (ray * ray).sum(axis=0)
    middle = (ray * to_ball).sum(axis=0) / square
    gap = ((to_ball * to_ball).sum(axis=0) - ball.radius**2) / square
    inside = middle * middle - gap
    at = middle - np.sqrt(np.maximum(inside, 0.0))
    return np.where((inside > 0) & (at > 1e-6), at, np.inf)


def trace(bodies: tuple[Solid | Ball, ...], camera: Camera, ray: FloatArray) -> Hits:
    """The nearest body along every ray (3, H, W) of `camera`; the ground is the plane z = 0."""
    height, width = ray.shape[1:]
    origin = camera.cam2world[:3, 3]
    with np.errstate(divide="ignore"):
        floor = np.where(ray[2] < -1e-9, -origin[2] / ray[2], np.inf)
    body = np.where(np.isfinite(floor), GROUND, SKY).astype(np.int64)
    face = np.zeros(floor.shape, dtype=np.int64)
    depth = floor
    for index, shape in enumerate(bodies):
        window = screen_window(camera, shape.corners, width, height)
        if window is None:
            continue
        part = ray[:, window[0], window[1]]
        if isinstance(shape, Solid):
            at, side = enter_solid(shape, origin, part)
        else:
            at, side = enter_ball(shape, origin, part), np.zeros(part.shape[1:], dtype=np.int64)
        nearer = at < depth[window]
        depth[window][nearer] = at[nearer]
        body[window][nearer] = index
        face[window][nearer] = side[nearer]
    return Hits(depth, body, face)


def shadowed(bodies: tuple[Solid | Ball, ...], camera: Camera, points: FloatArray, sun: FloatArray) -> BoolArray:
    """Which of the world `points` (3, H, W), as `camera` sees them, do not see the `sun` (direction towards it, z up).

    A body can only darken what lies in the hull of its corners and of their shadows on the ground.
    """
    height, width = points.shape[1:]
    dark = np.zeros((height, width), dtype=np.bool_)
    for shape in bodies:
        corners = shape.corners
        cast = corners - sun * (np.maximum(corners[:, 2:], 0.0) / sun[2])
        window = screen_window(camera, np.concatenate([corners, cast]), width, height)
        if window is None:
            continue
        start = points[:, window[0], window[1]]
        towards = np.broadcast_to(sun.reshape(3, 1, 1), start.shape)
        if isinstance(shape, Solid):
            at, _ = enter_solid(shape, start, towards)
        else:
            at = enter_ball(shape, start, towards)
        dark[window] |= np.isfinite(at) & (at > 1e-3)
    return dark
