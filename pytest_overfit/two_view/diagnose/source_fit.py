"""Where in a view of a batch the content of a file lies: found in the pixels, whatever the cameras say of it.

Shape legend: h w of the file, H W of the view, N looked-up pixels. Pixel centres lie at integers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_overfit.two_view.diagnose.source_views import Placed
from pytest_overfit.two_view.diagnose.view_lookup import TURNS, Array

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

    def score(place: Placed, pixels: int) -> float:
        h, w = file.shape
        size = [max(4, round(2 ** (round(4 * np.log2(n * min(s, 1.0))) / 4))) for n, s in
                ((w, abs(place.scale_x)), (h, abs(place.scale_y)))]  # fmt: skip
        key = (size[0], size[1], place.turn)
        if key not in reduced:
            turned = TURNS[place.turn](file) if place.turn else file
            picture = Image.fromarray(np.ascontiguousarray(turned).astype(np.float32))
            reduced[key] = np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BOX), dtype=np.float64)
        small, (u, v, at) = reduced[key], _grid(view, pixels)
        x = ((u - place.right) / place.scale_x + 0.5) * size[0] / w - 0.5
        y = ((v - place.down) / place.scale_y + 0.5) * size[1] / h - 0.5
        inside = (x >= 0) & (x <= size[0] - 1) & (y >= 0) & (y <= size[1] - 1)
        if inside.sum() < 0.5 * len(u):
            return -1.0
        a, b = at[inside], _between(small, x[inside], y[inside])
        a, b = a - a.mean(), b - b.mean()
        spread = float(np.sqrt((a * a).mean() * (b * b).mean()))
        return float((a * b).mean()) / spread if spread > 1e-6 else -1.0

    return score


def _depth_score(view: Array, file: Array) -> Score:
    """How many valid depths are those of the file, but for one factor; near ones count in part."""

    def score(place: Placed, pixels: int) -> float:
        u, v, z = _grid(view, pixels)
        u, v, z = u[z > 0], v[z > 0], z[z > 0]
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


def _between(picture: Array, x: Array, y: Array) -> Array:
    height, width = picture.shape
    i, j = np.minimum(x.astype(np.int64), width - 2), np.minimum(y.astype(np.int64), height - 2)
    dx, dy = x - i, y - j
    upper = (1 - dx) * picture[j, i] + dx * picture[j, i + 1]
    lower = (1 - dx) * picture[j + 1, i] + dx * picture[j + 1, i + 1]
    return np.asarray((1 - dy) * upper + dy * lower, dtype=np.float64)
