"""Do the images lie where the depths are?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pytest_overfit.two_view.diagnose.view_lookup import (
    ENOUGH,
    FEW,
    MANY,
    MATCHED,
    TURNS,
    Array,
    Flags,
    Image,
    Spots,
    Trial,
    Views,
    both_ways,
    colours_at,
    correlate,
    spots_of,
)
from pytest_overfit.two_view.diagnose.views import Picture

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


def look_at_pictures(views: Views, given: Trial) -> Picture | None:
    """The colours of what both views see, under the images as they are and under the best of all moves."""
    if views[0].image is None or views[1].image is None:
        return None
    images = views[0].image, views[1].image
    spots = spots_of(both_ways(views, [given], MANY), MATCHED)
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
    a, b = (colours_at(image, u[inside], v[inside]) for image, (u, v) in zip(images, places, strict=True))
    correlation = correlate(a, b)
    if math.isnan(correlation):
        return None
    return correlation, float(np.median(np.abs(a - b).mean(0)) / math.sqrt(a.std(1).mean() * b.std(1).mean()))


def _roughness(image: Image, u: Array, v: Array) -> float:
    """How badly colours are told from those a pixel around, in units of their variance: 1 is noise."""
    colours = colours_at(image, u, v)
    around = np.mean([colours_at(image, u + a, v + b) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))], axis=0)
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
