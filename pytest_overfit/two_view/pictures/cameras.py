"""The scene from the side, with the frusta of the true and of the predicted cameras in two colours.

World axes are those of the cameras (OpenCV: x right, y down, z forward); the view is orthographic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from pytest_overfit.two_view.pair.pair_files import ByteArray, Camera, FloatArray, FramePicture
from pytest_overfit.two_view.pair.reprojection import degrees_between, unproject
from pytest_overfit.two_view.pictures.drawing import (
    FAINT,
    INK,
    PAPER,
    Colour,
    Panel,
    Pen,
    blank,
    draw_lines,
)

TRUE: Colour = (22, 130, 72)
PREDICTED: Colour = (226, 88, 12)
WIDTH, HEIGHT, BORDER = 800, 600, 84
LEGEND = 74  # pixels at the top that nothing is drawn in
SIZE = 18  # pixels of the text
EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1), (1, 5), (5, 2))
POINTS = 60_000  # of the scene per frame


@dataclass(frozen=True)
class View:
    """An orthographic look at the world: `axes` (3, 3) has right, down and forward as rows."""

    axes: FloatArray
    centre: FloatArray
    scale: float

    def pixels(self, points: FloatArray) -> FloatArray:
        """Pixels (N, 2) of world points (N, 3), as columns and rows."""
        flat = (points - self.centre) @ self.axes[:2].T
        return np.asarray(flat * self.scale + [WIDTH / 2, (HEIGHT + LEGEND) / 2], dtype=np.float64)


@dataclass(frozen=True)
class Frustum:
    """One camera on the picture: `corners` (6, 2) as columns and rows, the colour, and the width of its lines."""

    corners: FloatArray
    colour: Colour
    width: int

    @property
    def lines(self) -> list[FloatArray]:
        """Each edge as two points (2, 2)."""
        return [self.corners[list(edge)] for edge in EDGES]


@dataclass(frozen=True)
class Label:
    """A line of text whose anchor is Pillow's: `l` or `r` of it and `m`iddle stand at (x, y)."""

    at: tuple[float, float]
    text: str
    anchor: str = "lm"
    colour: Colour = INK


@dataclass(frozen=True)
class CamerasDrawing:
    """What a picture of cameras shows, in pixels of (HEIGHT, WIDTH): the scene, the frusta over it, and the text.

    `swatches` are the upper left corners of the squares of the legend, and their colours; `gaps` go from each true
    camera to the one that was predicted for it, both as (x, y).
    """

    scene: Panel
    frusta: tuple[Frustum, ...]
    labels: tuple[Label, ...]
    swatches: tuple[tuple[tuple[int, int], Colour], ...]
    gaps: tuple[FloatArray, ...]


def draw_cameras(pictures: Sequence[FramePicture]) -> CamerasDrawing | None:
    """The scene with both kinds of cameras; None where the frames have no cameras.

    The true cameras are drawn broad and green, the predicted ones thin and orange over them. How far each predicted
    camera is off stands beside the legend: degrees, and normalised units.
    """
    known = [(picture, picture.camera) for picture in pictures if picture.camera is not None]
    if not known:
        return None
    points, colours = _scene(known)
    centres = np.stack([camera.cam2world[:3, 3] for _, camera in known])
    extent = _extent(np.concatenate([points, centres]))
    length = _length(centres, extent)
    truth = [frustum(camera, picture.image.shape[:2], length) for picture, camera in known]
    guess = [
        None if (camera := picture.predicted_camera) is None else frustum(camera, picture.image.shape[:2], length)
        for picture, _ in known
    ]
    near = [corners for corners in guess if corners is not None and _is_near(corners, centres, extent)]
    view = _choose_view([camera for _, camera in known], points, np.concatenate([*truth, *near]))
    canvas = blank(WIDTH, HEIGHT)
    _draw_points(canvas, view, points, colours)
    drawn = [*((each, TRUE, 4) for each in truth), *((each, PREDICTED, 2) for each in guess if each is not None)]
    room = 4 * WIDTH  # around the picture: lines to a camera far away end somewhere
    return CamerasDrawing(
        canvas,
        tuple(Frustum(np.clip(view.pixels(each), -room, room), colour, wide) for each, colour, wide in drawn),
        (*_legend(view, known, guess), *_frame_labels(view, [picture.frame for picture, _ in known], truth)),
        tuple(((20, 16 + 27 * line), colour) for line, colour in enumerate((TRUE, PREDICTED))),
        tuple(
            np.clip(view.pixels(np.stack([true[0], other[0]])), -room, room)
            for true, other in zip(truth, guess, strict=True)
            if other is not None
        ),
    )


def cameras_panel(pictures: Sequence[FramePicture]) -> Panel | None:
    """The drawing as (600, 800, 3) uint8 RGB; None where the frames have no cameras."""
    drawing = draw_cameras(pictures)
    if drawing is None:
        return None
    for gap in drawing.gaps:
        draw_lines(drawing.scene, [gap], gap[0], FAINT, width=1)
    for each in drawing.frusta:
        draw_lines(drawing.scene, each.lines, each.corners[0], each.colour, width=each.width)
    drawing.scene[:LEGEND] = 255
    pen = Pen(drawing.scene)
    for at, colour in drawing.swatches:
        pen.swatch(at, colour, "", size=SIZE)
    for label in drawing.labels:
        pen.text(label.at, label.text, size=SIZE, anchor=label.anchor, halo=PAPER, colour=label.colour)
    return pen.panel


def frustum(camera: Camera, size: tuple[int, int], length: float) -> FloatArray:
    """Centre, four corners of the image at a depth of `length`, and a point above it: (6, 3) in the world.

    Example:
        >>> frustum(Camera(np.array([[10.0, 0, 9.5], [0, 10, 9.5], [0, 0, 1]]), np.eye(4)), (20, 20), 2.0)[1].tolist()
        [-2.0, -2.0, 2.0]
    """
    height, width = size
    k = camera.intrinsics
    left, right = (-0.5 - k[0, 2]) / k[0, 0], (width - 0.5 - k[0, 2]) / k[0, 0]
    top, bottom = (-0.5 - k[1, 2]) / k[1, 1], (height - 0.5 - k[1, 2]) / k[1, 1]
    rays = [(0, 0, 0), (left, top, 1), (right, top, 1), (right, bottom, 1), (left, bottom, 1)]
    rays.append(((left + right) / 2, top - 0.35 * (bottom - top), 1))
    local = np.clip(np.asarray(rays, dtype=np.float64), -3, 3) * length  # a field of view that was never learnt
    return np.asarray(local @ camera.cam2world[:3, :3].T + camera.cam2world[:3, 3], dtype=np.float64)


def camera_errors(true: Camera, predicted: Camera) -> tuple[float, float]:
    """Degrees between two orientations, and the distance of the two positions."""
    degrees = degrees_between(predicted.cam2world[:3, :3].T, true.cam2world[:3, :3].T)
    return degrees, float(np.linalg.norm(predicted.cam2world[:3, 3] - true.cam2world[:3, 3]))


def _scene(known: Sequence[tuple[FramePicture, Camera]]) -> tuple[FloatArray, ByteArray]:
    """World points (N, 3) of the true depth, and their colours."""
    points, colours = [], []
    for picture, camera in known:
        rows, columns = np.nonzero(picture.valid & (picture.truth > 0))
        some = np.random.default_rng(0).permutation(len(rows))[:POINTS]  # every n-th would show as stripes
        rows, columns = rows[some], columns[some]
        points.append(unproject(picture.truth, camera.intrinsics, camera.world2cam, rows, columns).T)
        colours.append(picture.image[rows, columns])
    return np.concatenate(points), np.concatenate(colours)


def _extent(points: FloatArray) -> float:
    low, high = np.percentile(points, [2, 98], axis=0)
    return max(float(np.linalg.norm(high - low)), 1e-6)


def _length(centres: FloatArray, extent: float) -> float:
    """Frusta of cameras that stand close together are shorter, down to what can still be read."""
    apart = [float(np.linalg.norm(a - b)) for a, b in combinations(centres, 2)]
    return float(np.clip(0.7 * min(apart, default=np.inf), 0.07 * extent, 0.16 * extent))


def _is_near(corners: FloatArray, centres: FloatArray, extent: float) -> bool:
    """Whether a predicted camera may widen the view: one that is far off would shrink everything else to a dot."""
    return bool(np.linalg.norm(corners[0] - centres, axis=1).min() < 0.6 * extent)


def _choose_view(cameras: Sequence[Camera], points: FloatArray, frusta: FloatArray) -> View:
    """From behind and above, at the angle that best shows the cameras apart and none of them end-on."""
    up = _direction([-camera.cam2world[:3, 1] for camera in cameras])
    level = np.eye(3) - np.outer(up, up)
    around = [level @ camera.cam2world[:3, 2] for camera in cameras]
    ahead = _direction([*around, *(level @ axis for axis in np.eye(3))], first=len(around))
    candidates = [_axes(up, ahead, *angles) for angles in product(np.radians(range(-75, 76, 15)), np.radians([20, 35]))]
    axes = max(candidates, key=lambda each: _clarity(each, cameras))
    shown = np.concatenate([points[:: max(1, len(points) // 4000)] @ axes[:2].T, frusta @ axes[:2].T])
    weight = len(shown) - len(frusta)
    low, high = np.percentile(shown[:weight], [1, 99], axis=0) if weight else (shown.min(0), shown.max(0))
    low, high = np.minimum(low, shown[weight:].min(0)), np.maximum(high, shown[weight:].max(0))
    room = np.array([WIDTH - 2 * BORDER, HEIGHT - LEGEND - 2 * BORDER])
    middle = (low + high) / 2
    return View(axes, middle @ axes[:2], float((room / np.maximum(high - low, 1e-9)).min()))


def _direction(vectors: Sequence[FloatArray], first: int | None = None) -> FloatArray:
    """The mean direction of the `first` vectors; where they cancel out, that of the longest of all."""
    mean = np.mean(vectors[:first], axis=0)
    longest = max(vectors, key=lambda vector: float(np.linalg.norm(vector)))
    chosen = mean if np.linalg.norm(mean) > 1e-3 else longest
    return np.asarray(chosen / np.linalg.norm(chosen), dtype=np.float64)


def _axes(up: FloatArray, ahead: FloatArray, azimuth: float, elevation: float) -> FloatArray:
    side = np.cross(ahead, up)
    level = np.cos(azimuth) * ahead + np.sin(azimuth) * side
    forward = np.cos(elevation) * level - np.sin(elevation) * up
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def _clarity(axes: FloatArray, cameras: Sequence[Camera]) -> float:
    """How far apart the cameras are on the picture, against in space, and how much of their direction shows."""
    side = [float(np.linalg.norm(axes[:2] @ camera.cam2world[:3, 2])) for camera in cameras]
    apart = [
        float(np.linalg.norm(axes[:2] @ shift) / max(float(np.linalg.norm(shift)), 1e-9))
        for a, b in combinations(cameras, 2)
        for shift in [a.cam2world[:3, 3] - b.cam2world[:3, 3]]
    ]
    return min(side) + min(apart, default=0.0)


def _draw_points(canvas: Panel, view: View, points: FloatArray, colours: ByteArray) -> None:
    """The far ones first, a little faded so that the lines stand out."""
    order = np.argsort(-(points @ view.axes[2]))
    at = np.rint(view.pixels(points[order])).astype(np.int64)
    faded = (0.6 * colours[order] + 0.4 * 255).astype(np.uint8)
    for dv, du in product((0, 1), repeat=2):
        rows, columns = at[:, 1] + dv, at[:, 0] + du
        inside = (rows >= LEGEND) & (rows < HEIGHT) & (columns >= 0) & (columns < WIDTH)
        canvas[rows[inside], columns[inside]] = faded[inside]


def _legend(
    view: View, known: Sequence[tuple[FramePicture, Camera]], guess: Sequence[FloatArray | None]
) -> Iterator[Label]:
    for line, name in enumerate(("ground truth", "prediction")):
        yield Label((43, 24 + 27 * line), name)
    for line, ((picture, camera), corners) in enumerate(zip(known[:2], guess, strict=False)):
        text = f"frame {picture.frame}: no camera predicted"
        if picture.predicted_camera is not None and corners is not None:
            degrees, distance = camera_errors(camera, picture.predicted_camera)
            text = f"frame {picture.frame}: {degrees:.3g} degrees and {distance:.3g} of the scene's scale off"
            x, y = view.pixels(corners[:1])[0]
            text += "" if 0 <= x < WIDTH and LEGEND <= y < HEIGHT else ", out of view"
        yield Label((190, 24 + 27 * line), text, colour=FAINT)


def _frame_labels(view: View, frames: Sequence[int], truth: Sequence[FloatArray]) -> Iterator[Label]:
    """Beside each centre, on the side that the camera looks away from; one below the other where they would meet."""
    taken: list[tuple[float, float]] = []
    for frame, corners in zip(frames, truth, strict=True):
        x, y = map(float, view.pixels(corners[:1])[0])
        away = view.pixels(corners[1:5]).mean(0)[0] > x
        for other_x, other_y in sorted(taken, key=lambda at: at[1]):
            if abs(x - other_x) < 90 and abs(y - other_y) < 22:
                y = other_y + 22
        taken.append((x, y))
        anchor, shift = ("rm", -12) if away else ("lm", 12)
        yield Label((x + shift, y), f"frame {frame}", anchor)
