"""A small town out of a seed: houses, a wall, trees, the colours of their surfaces, and the rays that meet them.

World axes: x east, y north, z up, in metres. Every colour depends on the world point only, never on the viewer, so
that two views of one point agree. Rays are scaled so that their z in camera axes is 1: the ray parameter of a hit IS
the z-depth, to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pytest_overfit.two_view.pair.pair_files import BoolArray, ByteArray, Camera, FloatArray, IntArray

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


SUN = np.array([-0.45, -0.55, 0.70]) / np.linalg.norm([-0.45, -0.55, 0.70])
LABEL_WALL, LABEL_BUILDING, LABEL_SKY, LABEL_TREE, LABEL_ROAD = 0, 1, 2, 4, 6


@dataclass(frozen=True)
class Town:
    """`bodies` with one `tint` (N, 3) in 0..1 and one ADE20K `label` (N,) each; `noise` (256, 256) in 0..1."""

    bodies: tuple[Solid | Ball, ...]
    tints: FloatArray
    labels: IntArray
    noise: FloatArray


def build_town(rng: np.random.Generator) -> Town:
    """Houses on three sides of a square, a few small things on it, and a wall that closes the horizon."""
    bodies: list[Solid | Ball] = []
    tints: list[FloatArray] = []
    labels: list[int] = []

    def add(body: Solid | Ball, label: int, tint: FloatArray) -> None:
        bodies.append(body)
        tints.append(tint)
        labels.append(label)

    def add_house(x: float, y: float, yaw: float, tall: float) -> None:
        size = (rng.uniform(6.5, 8.5), rng.uniform(6.5, 9.0), tall)
        ridge = rng.uniform(1.5, 3.0) if rng.random() < 0.7 else 0.0
        tint = np.array([0.80, 0.70, 0.58]) * rng.uniform(0.75, 1.2, 3)
        add(house(np.array([x, y, 0.0]), size, yaw, ridge), LABEL_BUILDING, np.clip(tint, 0.2, 0.95))

    for x in (-15.0, -5.0, 5.0, 15.0):
        add_house(x + rng.uniform(-0.8, 0.8), rng.uniform(13.0, 18.0), rng.uniform(-0.2, 0.2), rng.uniform(5.0, 9.0))
    for side in (-1.0, 1.0):
        for y in (-8.0, 3.0):
            add_house(side * rng.uniform(16.0, 19.0), y + rng.uniform(-1, 1), rng.uniform(-0.3, 0.3), rng.uniform(4, 7))
    for x, y in rng.permutation([(-6.0, 2.0), (0.0, 5.0), (6.0, 1.0)])[:2]:
        size = (rng.uniform(1.8, 3.0), rng.uniform(1.8, 3.0), rng.uniform(1.6, 2.8))
        spot = np.array([x + rng.uniform(-1.5, 1.5), y + rng.uniform(-1.5, 1.5), 0.0])
        add(house(spot, size, rng.uniform(0, 1.5), 0.8), LABEL_BUILDING, rng.uniform(0.35, 0.9, 3))
    for x, y in ((-9.5, -3.0), (9.5, -2.0), (-10.0, 8.0), (10.0, 8.5)):
        spot = np.array([x + rng.uniform(-1, 1), y + rng.uniform(-1, 1), 0.0])
        top = rng.uniform(2.6, 3.4)
        add(house(spot, (0.4, 0.4, top), 0.3), LABEL_TREE, np.array([0.36, 0.26, 0.18]))
        leaf = np.array([0.28, 0.46, 0.20]) * rng.uniform(0.8, 1.25, 3)
        add(Ball(spot + np.array([0.0, 0.0, top + 0.6]), rng.uniform(1.2, 1.8)), LABEL_TREE, leaf)
    add(house(np.array([0.0, 27.0, 0.0]), (90.0, 1.0, 4.0), 0.0), LABEL_WALL, np.array([0.62, 0.58, 0.52]))
    for side in (-1.0, 1.0):
        add(house(np.array([side * 30.0, -3.0, 0.0]), (1.0, 62.0, 4.0), 0.0), LABEL_WALL, np.array([0.60, 0.57, 0.50]))
    return Town(tuple(bodies), np.array(tints), np.array(labels, dtype=np.int64), rng.random((256, 256)))


def smooth_noise(table: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """The periodic noise `table` (256, 256), read bilinearly at (x, y): one lattice cell per unit, in 0..1."""
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    dx, dy = x - column, y - row
    left, right, top, bottom = column & 255, (column + 1) & 255, row & 255, (row + 1) & 255
    upper = table[top, left] * (1 - dx) + table[top, right] * dx
    lower = table[bottom, left] * (1 - dx) + table[bottom, right] * dx
    return np.asarray(upper * (1 - dy) + lower * dy, dtype=np.float64)


def _grain(town: Town, x: FloatArray, y: FloatArray) -> FloatArray:
    """Two octaves of noise at about 2.5 m and 0.7 m, around 1."""
    return 0.66 + 0.4 * smooth_noise(town.noise, x * 0.4, y * 0.4) + 0.28 * smooth_noise(town.noise, x * 1.4, y * 1.4)


def _ground_colour(town: Town, x: FloatArray, y: FloatArray) -> FloatArray:
    """Paving (3, N) in two tones with joints, grass outside of the square."""
    checker = (np.floor(x / 3.0) + np.floor(y / 3.0)) % 2
    joint = (np.minimum(np.mod(x, 3.0), np.mod(y, 3.0)) < 0.22).astype(np.float64)
    tone = 0.62 + 0.16 * checker - 0.18 * joint
    paving = np.array([1.0, 0.95, 0.87])[:, None] * tone
    grass = np.array([0.42, 0.52, 0.28])[:, None] * np.ones_like(x)
    edge = np.hypot(x / 1.15, y + 2.0) + 5.0 * smooth_noise(town.noise, x * 0.15 + 40.0, y * 0.15)
    return np.where(edge < 15.5, paving, grass) * _grain(town, x, y)


def _solid_colour(town: Town, index: int, face: IntArray, points: FloatArray) -> FloatArray:
    """Colours (3, N) of `points` (3, N) on a solid: walls with windows, roofs with ribs."""
    solid = town.bodies[index]
    assert isinstance(solid, Solid)
    x, y, z = solid.axes @ (points - solid.centre[:, None])
    along = np.where(face < 2, y, x) + 11.0 * index
    roof = face >= 5
    colour = town.tints[index][:, None] * _grain(town, np.where(roof, x + 7.0 * index, along), np.where(roof, y, z))
    if town.labels[index] == LABEL_BUILDING:
        window = (np.mod(along, 2.6) > 1.4) & (np.mod(z, 2.8) > 1.1) & (np.mod(z, 2.8) < 2.3) & ~roof
        colour = np.where(window, np.array([0.20, 0.26, 0.34])[:, None], colour)
        ribs = 0.8 + 0.25 * (np.mod(y, 1.2) < 0.6)
        tiles = np.array([0.72, 0.36, 0.26])[:, None] * ribs * _grain(town, x + 7.0 * index, y)
        colour = np.where(roof, tiles, colour)
    return np.asarray(colour, dtype=np.float64)


def surface_colour(town: Town, hits: Hits, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Albedo (3, H, W) at the world `points` (3, H, W) that rays met, and the cosine to the sun (H, W), 0..1."""
    albedo = np.zeros_like(points)
    facing = np.zeros(hits.depth.shape)
    here = hits.body == GROUND
    albedo[:, here] = _ground_colour(town, points[0][here], points[1][here])
    facing[here] = SUN[2]
    for index in np.unique(hits.body[hits.body >= 0]):
        here = hits.body == index
        spot, body = points[:, here], town.bodies[index]
        if isinstance(body, Solid):
            face = hits.face[here]
            albedo[:, here] = _solid_colour(town, int(index), face, spot)
            facing[here] = (body.normals @ SUN)[face]
        else:
            albedo[:, here] = town.tints[index][:, None] * _grain(
                town, spot[0] * 3 + spot[2] * 2, spot[1] * 3 - spot[2]
            )
            facing[here] = SUN @ (spot - body.centre[:, None]) / body.radius
    return albedo, np.maximum(facing, 0.0)


def sky_colour(town: Town, ray: FloatArray) -> FloatArray:
    """Blue (3, H, W) that pales towards the horizon, with clouds that only depend on the direction."""
    up = np.clip(ray[2] / np.sqrt((ray * ray).sum(axis=0)), 0.0, 1.0)
    cloud = smooth_noise(town.noise, ray[0] * 9.0, up * 25.0) * smooth_noise(town.noise, ray[0] * 21.0, up * 50.0)
    pale = np.clip(1.0 - 2.2 * up, 0.0, 1.0) * 0.7 + 0.5 * cloud
    blue, white = np.array([0.36, 0.56, 0.88])[:, None, None], np.array([0.93, 0.95, 0.97])[:, None, None]
    return np.asarray(blue + (white - blue) * np.clip(pale, 0.0, 1.0), dtype=np.float64)


def labels_of(town: Town, hits: Hits) -> ByteArray:
    """ADE20K-150 labels (H, W) uint8, counted from 0."""
    table = np.concatenate([town.labels, [LABEL_SKY, LABEL_ROAD]]).astype(np.uint8)  # index -2 is SKY, -1 is GROUND
    assert (SKY, GROUND) == (-2, -1)
    return np.asarray(table[hits.body])


def look_at(eye: FloatArray, target: FloatArray, focal: float, width: int, height: int) -> Camera:
    """A camera at `eye` that looks at `target` (world metres), upright, focal length in pixels, OpenCV axes."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, eye
    centre = (width - 1) / 2, (height - 1) / 2
    return Camera(np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]]), pose)


def cameras(rng: np.random.Generator, width: int, height: int) -> tuple[Camera, Camera]:
    """One camera in the air that looks down at the square, and one that stands at its southern end."""
    side = rng.choice([-1.0, 1.0])
    bearing, tilt = side * rng.uniform(0.3, 0.55), rng.uniform(0.60, 0.70)
    target = np.array([rng.uniform(-1, 1), rng.uniform(1.5, 3.0), 2.0])
    away = np.array([np.sin(bearing) * np.cos(tilt), -np.cos(bearing) * np.cos(tilt), np.sin(tilt)])
    aerial = look_at(target + rng.uniform(37.0, 40.0) * away, target, 1.30 * width, width, height)
    foot = np.array([rng.uniform(-3, 3), rng.uniform(-19.0, -17.0), rng.uniform(2.6, 3.2)])
    ground = look_at(foot, np.array([rng.uniform(-2, 2), 8.0, rng.uniform(4.0, 5.0)]), 1.05 * width, width, height)
    return aerial, ground


def generator_of(seed: int) -> np.random.Generator:
    """The random numbers that a town and its cameras are made of, in this order."""
    return np.random.default_rng([seed, 20250])


def cameras_of(seed: int) -> tuple[Camera, Camera]:
    """The two cameras of the town of `seed`, at 640 x 480; where they stand does not depend on the size."""
    rng = generator_of(seed)
    build_town(rng)
    return cameras(rng, 640, 480)
