"""Depth that is one and the same number over a part of a view: a wall, or what stands for sky."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pytest_overfit.two_view.diagnose.view_lookup import (
    ENOUGH,
    MANY,
    Array,
    View,
    Views,
    agreement_of,
    as_given,
    both_ways,
    comparable,
    connected,
)
from pytest_overfit.two_view.diagnose.views import TOLERANCES, Plateau

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
