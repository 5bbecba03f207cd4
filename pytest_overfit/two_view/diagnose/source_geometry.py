"""A batch beside the files of its pair: places, sizes, units, sky and cameras, each measured in the pixels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_overfit.two_view.diagnose.view_changes import POSES
from pytest_overfit.two_view.diagnose.view_lookup import (
    FORMS,
    TURNS,
    Array,
    Flags,
    colours_at,
    is_two_view,
    to_numpy,
)
from pytest_overfit.two_view.diagnose.views import Placed, SourcePose, SourceSeen, SourceView
from pytest_overfit.two_view.pair.pair_files import SKY_LABEL, RawView
from pytest_overfit.two_view.pair.reprojection import degrees_between

FITTING = 0.97  # correlation of one picture with itself, resized by two methods; healthy pairs: 0.990 and more
FOUND = 0.95  # least of a picture whose colours were changed
DEPTH_FITTING, DEPTH_FOUND = 0.85, 0.6  # share of depths
FLIPS = ("", "flipped left to right", "flipped upside down", "turned by half a turn")
FEW, MANY = 400, 2500  # pixels that are looked up to search, and to judge
NEAR = 0.02  # relative difference of depths that are one
SEEDS, SIMPLER = 3, 0.005  # places that are looked at closely, and by how much one has to fit better
Score = Callable[[Placed, int], float]


def place_image(view: Array, files: Sequence[Array], own: int, guess: Placed) -> Placed | None:
    """The place of a picture (H, W) among those of files (h, w); None where none of them is it."""
    scores = [_picture_score(view, file, guess) for file in files]
    return _placed(scores, own, guess, _guesses(view.shape, files[own].shape), FITTING, FOUND)


def place_depth(view: Array, files: Sequence[Array], own: int, guess: Placed) -> Placed | None:
    """The same of depths, up to one factor; 0 does not count."""
    scores = [_depth_score(view, file) for file in files]
    return _placed(scores, own, guess, _guesses(view.shape, files[own].shape), DEPTH_FITTING, DEPTH_FOUND)


def _placed(
    scores: Sequence[Score], own: int, guess: Placed, others: Sequence[Placed], fitting: float, found: float
) -> Placed | None:
    """Near where it should be; else flipped, moved, of another size, or the other file: what is simpler is named."""
    half = replace(guess, right=guess.right + 0.5, down=guess.down + 0.5)
    near = [_refined(scores[own], replace(one, file=own), first) for one in (half, guess) for first in (0.5, 4.0)]
    best = max(near, key=lambda one: one.fit)
    for file, score in enumerate(scores):  # two views that are near each other are alike
        other = _refined(score, replace(guess, file=file)) if file != own else best
        best = other if other.fit > best.fit + SIMPLER else best
    for file in (own, *(k for k in range(len(scores)) if k != own)):
        if best.fit >= fitting:
            break
        starts = [replace(one, file=file, turn=turn) for one in (guess, *others) for turn in FLIPS]
        coarse = [max((replace(one, fit=scores[file](one, FEW)) for one in _shifted(start)), key=lambda one: one.fit)
                  for start in starts]  # fmt: skip
        for start in sorted(coarse, key=lambda one: -one.fit)[:SEEDS]:
            refined = _refined(scores[file], start)
            if refined.fit > best.fit + SIMPLER:
                best = refined
    return best if best.fit >= found else None


def _guesses(shape: tuple[int, ...], of_file: tuple[int, ...]) -> tuple[Placed, ...]:
    """Resized to cover the view and cut in the middle, stretched to it, cut in the middle alone."""
    (height, width), (h, w) = shape, of_file
    cover = max(height / h, width / w)
    scales = ((cover, cover), (width / w, height / h), (1.0, 1.0))
    middle = ((width - 1) / 2, (height - 1) / 2)
    return tuple(Placed(0, "", x, y, middle[0] - x * (w - 1) / 2, middle[1] - y * (h - 1) / 2, 0.0) for x, y in scales)


def _shifted(place: Placed) -> Iterator[Placed]:
    step = 2.0 * max(place.scale_x, place.scale_y, 2.0)
    for right, down in itertools.product(range(-6, 7), repeat=2):
        yield replace(place, right=place.right + step * right, down=place.down + step * down)


def _refined(score: Score, place: Placed, first: float = 4.0) -> Placed:
    """Uphill, by steps of place and size that are halved until they are a sixteenth of a pixel."""
    best, pixels = replace(place, fit=score(place, MANY)), first
    while pixels >= 0.06:
        moved = max((replace(one, fit=score(one, MANY)) for one in _around(best, pixels)), key=lambda one: one.fit)
        if moved.fit > best.fit:
            best = moved
        else:
            pixels /= 2
    return best


def _around(place: Placed, pixels: float) -> Iterator[Placed]:
    """The neighbours of a place: shifted, or resized about the middle of the view, by about so many pixels."""
    for sign in (-1, 1):
        yield replace(place, right=place.right + sign * pixels)
        yield replace(place, down=place.down + sign * pixels)
        factor = 1 + sign * pixels / 50
        right, down = 50 + factor * (place.right - 50), 50 + factor * (place.down - 50)
        yield replace(place, scale_x=place.scale_x * factor, right=right)
        yield replace(place, scale_y=place.scale_y * factor, down=down)
        yield replace(place, scale_x=place.scale_x * factor, right=right, scale_y=place.scale_y * factor, down=down)


def _picture_score(view: Array, file: Array, guess: Placed) -> Score:
    """The correlation of a view with a file that is first reduced to about its size."""
    reduced: dict[tuple[int, int, str], Array] = {}
    grid = cache(partial(_grid, view))

    def score(place: Placed, pixels: int) -> float:
        h, w = file.shape
        size = [max(4, round(2 ** (round(4 * np.log2(n * min(s, 1.0))) / 4))) for n, s in
                ((w, abs(place.scale_x)), (h, abs(place.scale_y)))]  # fmt: skip
        key = (size[0], size[1], place.turn)
        if key not in reduced:
            turned = TURNS[place.turn](file) if place.turn else file
            picture = Image.fromarray(np.ascontiguousarray(turned).astype(np.float32))
            reduced[key] = np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BOX), dtype=np.float64)
        small, (u, v, at) = reduced[key], grid(pixels)
        x = ((u - place.right) / place.scale_x + 0.5) * size[0] / w - 0.5
        y = ((v - place.down) / place.scale_y + 0.5) * size[1] / h - 0.5
        inside = (x >= 0) & (x <= size[0] - 1) & (y >= 0) & (y <= size[1] - 1)
        if inside.sum() < 0.5 * len(u):
            return -1.0
        a, b = at[inside], colours_at(small[None], x[inside], y[inside])[0]
        a, b = a - a.mean(), b - b.mean()
        spread = float(np.sqrt((a * a).mean() * (b * b).mean()))
        return float((a * b).mean()) / spread if spread > 1e-6 else -1.0

    return score


def _depth_score(view: Array, file: Array) -> Score:
    """How many valid depths are those of the file, but for one factor; near ones count in part."""

    @cache
    def valid(pixels: int) -> tuple[Array, Array, Array]:
        u, v, z = _grid(view, pixels)
        return u[z > 0], v[z > 0], z[z > 0]

    def score(place: Placed, pixels: int) -> float:
        u, v, z = valid(pixels)
        there = looked_up(file, place, u, v)
        held = there > 0
        if held.sum() < 0.4 * max(len(z), 1) or not len(z):
            return 0.0
        off = np.log(z[held] / there[held])
        off = np.abs(off - np.median(off)) / NEAR
        return float(np.maximum(0.0, 1 - off).sum()) / len(z)

    return score


def looked_up(file: npt.NDArray[np.floating[Any]], place: Placed, u: Array, v: Array) -> Array:
    """The value of the file's nearest pixel for each (u, v) of the view; 0 outside."""
    turned = TURNS[place.turn](file) if place.turn else file
    x = np.rint((u - place.right) / place.scale_x)
    y = np.rint((v - place.down) / place.scale_y)
    inside = (x >= 0) & (x < file.shape[1]) & (y >= 0) & (y < file.shape[0])
    x, y = np.where(inside, x, 0).astype(np.int64), np.where(inside, y, 0).astype(np.int64)
    return np.asarray(np.where(inside, turned[y, x], 0.0), dtype=np.float64)


def _grid(view: Array, pixels: int) -> tuple[Array, Array, Array]:
    """Columns, rows and values of about so many pixels, evenly spread."""
    height, width = view.shape
    step = max(1, int(np.sqrt(height * width / pixels)))
    v, u = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    return u.ravel().astype(np.float64), v.ravel().astype(np.float64), view[v.ravel(), u.ravel()]


Map = npt.NDArray[np.floating[Any]]
EXACT = 1e-3  # radians, and relative to the baseline: poses that are one
EXPLAINED, PART = 0.9, 0.01  # share of a label that is left out, and least share of the view it covers
TRUSTED = 2, 98  # percentiles of depth outside of which a loader may leave pixels out


def compare_with_files(
    batch: Mapping[str, Any], name: str, raw: Sequence[RawView], *, remove_sky: bool = True, max_depth: float = 2000.0
) -> SourceSeen | None:
    """The first sample of a batch, as a loader hands it out, beside the two files of its pair.

    Args:
        batch: `images` (B, S, 3, H, W), `depths` (B, S, H, W), `intrinsics`, `extrinsics`, and `point_masks`, if any.
        raw: the views as they lie on disk.
        remove_sky: whether the sky is meant to be left out; else nothing is said of it.
        max_depth: metres beyond which depth is meant to be left out.
    """
    images = batch.get("images")
    if not is_two_view(batch) or images is None or images.dim() != 5 or images.shape[3:] != batch["depths"].shape[2:]:
        return None
    views = [_view(batch, k, raw, remove_sky, max_depth) for k in range(2)]
    return SourceSeen(name, tuple(views), _pose(batch, raw))


def _view(batch: Mapping[str, Any], k: int, raw: Sequence[RawView], remove_sky: bool, max_depth: float) -> SourceView:
    image = to_numpy(batch["images"][0, k]).mean(0)
    depth, K = to_numpy(batch["depths"][0, k]), to_numpy(batch["intrinsics"][0, k])
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)
    counts = depth > 0
    if "point_masks" in batch:
        counts &= to_numpy(batch["point_masks"][0, k].float()) > 0
    on_disk = raw[k].camera.intrinsics
    camera = _of_camera(K, on_disk)
    pictures = [view.image.astype(np.float64).mean(-1) for view in raw]
    placed = place_image(image, pictures, k, camera)
    seen = SourceView(
        k, int(image.shape[0]), int(image.shape[1]), placed, None, camera,
        (float(on_disk[0, 0]), float(on_disk[1, 1])), (float(on_disk[0, 2]), float(on_disk[1, 2])),
    )  # fmt: skip
    if placed is None or not counts.any():
        return seen
    form = _form(depth, raw[k].depth, placed, on_disk)
    remade = _remade(depth, form, placed, on_disk)
    at = place_depth(remade, [np.where(np.isfinite(view.depth), view.depth, 0.0) for view in raw], k,
                     replace(placed, file=k, turn=""))  # fmt: skip
    if at is None:
        return replace(seen, form=form)
    factor = _ratios(remade, raw[at.file].depth, at)
    seen = replace(seen, form=form, depth=at, factor=float(np.median(factor)) if len(factor) else 1.0)
    return _with_sky(seen, counts, raw[k], max_depth) if remove_sky else seen


def _of_camera(K: Array, on_disk: Array) -> Placed:
    """Where the intrinsics of the batch put the pixels of the file."""
    x, y = float(K[0, 0] / on_disk[0, 0]), float(K[1, 1] / on_disk[1, 1])
    return Placed(0, "", x, y, float(K[0, 2] - x * on_disk[0, 2]), float(K[1, 2] - y * on_disk[1, 2]), 1.0)


def _form(depth: Array, file: Map, at: Placed, on_disk: Array) -> str:
    """What has to be done to a depth that lies where the picture does so that it is the file's, but for one factor."""
    forms = ("", *FORMS)
    shares = [_share(_ratios(_remade(depth, form, at, on_disk), file, at)) for form in forms]
    best = int(np.argmax(shares))
    return forms[best] if shares[best] >= DEPTH_FITTING and shares[best] > shares[0] + 0.1 else ""


def _remade(depth: Array, form: str, at: Placed, on_disk: Array) -> Array:
    if not form:
        return depth
    size = np.array([[at.scale_x, 0.0, at.right], [0.0, at.scale_y, at.down], [0.0, 0.0, 1.0]])
    return FORMS[form](depth, size @ on_disk)


def _ratios(depth: Array, file: Map, at: Placed) -> Array:
    v, u = np.nonzero(depth > 0)
    there = looked_up(file, at, u.astype(np.float64), v.astype(np.float64))
    held = there > 0
    return np.asarray(depth[v, u][held] / there[held], dtype=np.float64)


def _share(ratios: Array) -> float:
    """Share of ratios that are one and the same factor."""
    if len(ratios) < 100:
        return 0.0
    off = np.log(np.maximum(ratios, 1e-12))
    return float((np.abs(off - np.median(off)) < NEAR).mean())


def _with_sky(seen: SourceView, counts: Flags, raw: RawView, max_depth: float) -> SourceView:
    """What becomes of the labels on disk: the sky that counts, and another label that does not."""
    if raw.labels is None or seen.depth is None:
        return seen
    v, u = (axis.ravel() for axis in np.indices(counts.shape, dtype=np.float64))
    labels = looked_up(raw.labels.astype(np.float64) + 1, seen.depth, u, v) - 1
    there, counted = looked_up(raw.depth, seen.depth, u, v), counts.ravel()
    sky = (labels == SKY_LABEL) & (there > 0)
    if sky.mean() < PART:
        return seen
    usable = raw.depth[(raw.labels != SKY_LABEL) & (raw.depth > 0) & (raw.depth <= max_depth)]
    nearest, farthest = np.percentile(usable, TRUSTED) if len(usable) else (0.0, 0.0)
    sound = (labels != SKY_LABEL) & (there > nearest) & (there < farthest)
    others = {
        int(label): 1 - float(counted[which].mean())
        for label in np.unique(labels[sound])
        if (which := sound & (labels == label)).mean() >= PART
    }
    label = max(others, key=lambda one: others[one], default=None)
    lost = sound & ~counted
    if label is not None and (labels[lost] == label).sum() < EXPLAINED * lost.sum():
        label = None
    label = label if label is not None and others[label] >= EXPLAINED else None
    return replace(seen, sky=float(sky.mean()), kept=float(counted[sky].mean()), label=label)


def _pose(batch: Mapping[str, Any], raw: Sequence[RawView]) -> SourcePose:
    given = [np.vstack((to_numpy(batch["extrinsics"][0, k])[:3], np.eye(4)[3:])) for k in range(2)]
    right = [np.asarray(view.camera.world2cam, dtype=np.float64) for view in raw[:2]]
    turned, moved, factor = _apart(_relative(given), _relative(right))
    same = bool(np.abs(given[0] - given[1]).max() < 1e-6) and bool(np.abs(right[0] - right[1]).max() > EXACT)
    change = ""
    if np.degrees(EXACT) < turned or moved > EXACT:
        mended = {name: [mend(pose) for pose in given] for name, mend in POSES.items()} | {"order": given[::-1]}
        equal = (name for name, poses in mended.items() if _is_one(_relative(poses), _relative(right)))
        change = "" if same else next(equal, "")
    return SourcePose(turned, moved, factor, same, change)


def _relative(poses: Sequence[Array]) -> Array:
    return np.asarray(poses[1] @ np.linalg.inv(poses[0]), dtype=np.float64)


def _apart(pose: Array, other: Array) -> tuple[float, float, float]:
    """Degrees between the rotations, relative difference of the directions of the translations, and their factor."""
    degrees = degrees_between(pose[:3, :3], other[:3, :3])
    lengths = np.linalg.norm(pose[:3, 3]), np.linalg.norm(other[:3, 3])
    if min(lengths) <= 0:
        return degrees, 1.0, 0.0
    moved = np.linalg.norm(pose[:3, 3] / lengths[0] - other[:3, 3] / lengths[1])
    return degrees, float(moved), float(lengths[0] / lengths[1])


def _is_one(pose: Array, other: Array) -> bool:
    turned, moved, _ = _apart(pose, other)
    return bool(turned <= np.degrees(EXACT) and moved <= 10 * EXACT)
