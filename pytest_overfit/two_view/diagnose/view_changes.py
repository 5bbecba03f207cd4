"""Which one thing, changed in a batch, would make two of its views agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from pytest_overfit.two_view.diagnose.picture_fit import look_at_pictures
from pytest_overfit.two_view.diagnose.view_lookup import (
    ENOUGH,
    FEW,
    FORMS,
    TURNS,
    Array,
    Remake,
    Trial,
    View,
    Views,
    agreement_of,
    as_given,
    both_ways,
    rank,
    remade_depth,
)
from pytest_overfit.two_view.diagnose.views import TOLERANCES, Agreement, Change, Pair

SOUND = 0.75  # score from which no change is clearly better,
SOUND_SURFACES = 0.8, 0.55  # or share of the surfaces that agree, and score for that
PROMISING = 0.35  # score of a change that may well be the one


def _inverted(pose: Array) -> Array:
    return np.asarray(np.linalg.inv(pose), dtype=np.float64)


def _with(pose: Array, turn: Array, shift: Array) -> Array:
    changed: Array = pose.copy()
    changed[:3, :3], changed[:3, 3] = turn, shift
    return changed


GL, LEFT_HANDED = np.diag([1.0, -1, -1, 1]), np.diag([1.0, -1, 1, 1])
UP_LEFT, PACKED = np.diag([-1.0, -1, 1, 1]), np.eye(4)[[1, 0, 2, 3]]
# The likelier first: among equals the first is named.
POSES: Mapping[str, Remake] = {
    "inverted": _inverted,
    "OpenGL": lambda pose: GL @ pose,
    "inverted OpenGL": lambda pose: GL @ _inverted(pose),
    "half inverted": lambda pose: _with(pose, pose[:3, :3].T, -pose[:3, 3]),
    "rotation transposed": lambda pose: _with(pose, pose[:3, :3].T, pose[:3, 3]),
    "translation negated": lambda pose: _with(pose, pose[:3, :3], -pose[:3, 3]),
    "translation is the centre": lambda pose: _with(pose, pose[:3, :3], -pose[:3, :3] @ pose[:3, 3]),
    "PyTorch3D": lambda pose: UP_LEFT @ pose,
    "left-handed": lambda pose: LEFT_HANDED @ pose,
    "OpenGL world": lambda pose: pose @ GL,
    "rows swapped": lambda pose: PACKED @ pose,
}
EXCHANGED = "depths exchanged"
CENTRED, OFF_CENTRE = "principal point at the centre", 0.08  # of the image size


def _trials(views: Views, given: Trial) -> Iterator[Trial]:
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


def _off_centre(view: View) -> bool:
    height, width = view.depth.shape
    off = view.intrinsics[0, 2] / width - 0.5, view.intrinsics[1, 2] / height - 0.5
    return bool(max(abs(off[0]), abs(off[1])) > OFF_CENTRE)


def _scaled_baseline(given: Trial, factor: float) -> Trial:
    relative = _with(given.relative, given.relative[:3, :3], factor * given.relative[:3, 3])
    return replace(given, name="baseline", factor=factor, relative=relative)


def _scaled_intrinsics(given: Trial, factor: float) -> Trial:
    first, second = (np.diag([factor, factor, 1.0]) @ K for K in given.intrinsics)
    return replace(given, name="intrinsics scaled", factor=factor, intrinsics=(first, second))


def _scaled_focal(given: Trial, factor: float) -> Trial:
    """The focal length alone: the principal point is that of the images."""
    first, second = (
        np.array([[factor * K[0, 0], K[0, 1], K[0, 2]], [K[1, 0], factor * K[1, 1], K[1, 2]], K[2]])
        for K in given.intrinsics
    )
    return replace(given, name="focal length scaled", factor=factor, intrinsics=(first, second))


def _scaled_depth(given: Trial, factor: float) -> Trial:
    first, second = (scale * (factor if given.view == k else 1.0) for k, scale in enumerate(given.scales))
    return replace(given, name="depth scaled", factor=factor, scales=(first, second))


Scaled = Callable[[Trial, float], Trial]
SCALES: tuple[tuple[Scaled, float, int], ...] = ((_scaled_baseline, 1e4, 93), (_scaled_intrinsics, 8.0, 25),
                                              (_scaled_focal, 8.0, 25))  # fmt: skip
RESCALED: Mapping[str, Scaled] = {
    "baseline": _scaled_baseline, "intrinsics scaled": _scaled_intrinsics, "depth scaled": _scaled_depth,
    "focal length scaled": _scaled_focal,
}  # fmt: skip


def _peaks(views: Views, given: Trial, scaled: Scaled, most: float, steps: int) -> Iterator[Trial]:
    """The best factors, 1 / most to most, of a grid that is refined twice."""
    grid = np.geomspace(1 / most, most, steps)
    ranks = rank(views, [scaled(given, float(factor)) for factor in grid])
    padded = np.pad(ranks, 1)
    tops = np.flatnonzero((ranks > 0) & (ranks >= padded[:-2]) & (ranks > padded[2:]))
    ratio = grid[1] / grid[0]
    for top in sorted(tops, key=lambda k: -float(ranks[k]))[:3]:
        factor = float(grid[top])
        for reach in (ratio, ratio**0.25):
            finer = factor * np.geomspace(1 / reach, reach, 9)
            factor = float(finer[rank(views, [scaled(given, float(f)) for f in finer]).argmax()])
        yield scaled(given, factor)


def _depth_factors(views: Views, given: Trial) -> Iterator[Trial]:
    """Depth of one view in another unit: looked up there from the other, it is off by one factor everywhere."""
    for view, way in zip((1, 0), both_ways(views, [given], FEW), strict=True):
        if np.isfinite(way.excess).sum() >= ENOUGH:
            yield _scaled_depth(replace(given, view=view), float(np.exp(np.nanmedian(way.excess))))


def _changes(views: Views, given: Trial) -> tuple[Change, ...]:
    """The best three changes, the best first; among equals the likelier, and all views before one."""
    trials = [*_trials(views, given), *_depth_factors(views, given)]
    for scaled, most, steps in SCALES:
        trials += _peaks(views, given, scaled, most, steps)
    found = []
    for k in sorted(np.argsort(-rank(views, trials))[:12]):
        turned = views[0].image is not None and any(name in TURNS for name in trials[k].remade)
        for pictures in (False, True) if turned else (False,):
            found.append((trials[k], agreement_of(views, trials[k], pictures), pictures))
    exchanged = replace(views[0], depth=views[1].depth), replace(views[1], depth=views[0].depth)
    found.append((replace(given, name=EXCHANGED), agreement_of(exchanged, given), False))
    best = max(agreement.score for _, agreement, _ in found)
    found.sort(key=lambda one: -min(one[1].score, 0.97 * best))
    return tuple(_change(exchanged if one[0].name == EXCHANGED else views, *one) for one in found[:3])


def _change(views: Views, trial: Trial, agreement: Agreement, pictures: bool) -> Change:
    beside = 0.0
    if trial.name in RESCALED:
        beside = max(agreement_of(views, RESCALED[trial.name](trial, by)).score for by in (1.5, 1 / 1.5))
    chance = _chance(views, trial) if math.isnan(agreement.colour) else 0.0
    return Change(trial.name, trial.view, trial.factor, agreement, pictures, beside, chance)


def _chance(views: Views, trial: Trial) -> float:
    """The agreement, 0 to 1, of the same cameras with depth that means nothing: that of the second view, turned."""
    first, second = (remade_depth(view, name) for view, name in zip(views, trial.remade, strict=True))
    plain = replace(trial, remade=("", ""))
    others = [
        (replace(views[0], depth=first), replace(views[1], depth=TURNS[turn](second))) for turn in list(TURNS)[:3]
    ]
    return max(
        sum(agreed.agree) / len(TOLERANCES) * math.sqrt(agreed.landed)
        for agreed in (agreement_of((replace(a, image=None), b), plain) for a, b in others)
    )


def compare(views: Views, sample: int, first: int, *, search: bool) -> Pair:
    views = _centred(views)
    given = as_given(views)
    agreement = agreement_of(views, given)
    surfaces, less = SOUND_SURFACES
    sound = agreement.score >= (less if agreement.agree[1] >= surfaces else SOUND)
    changes = _changes(views, given) if search and not sound else ()
    best = changes[0].agreement.score if changes else 0.0
    nudged = _nudged(views, given) if best > 1.3 * agreement.score else agreement.score
    explained = best > max(PROMISING, 1.5 * agreement.score)
    picture = look_at_pictures(views, given) if search and not explained else None
    return Pair(sample, first, first + 1, agreement, changes, nudged, picture)


NUDGES = (1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25)  # degrees, and tenths of the baseline


def _nudged(views: Views, given: Trial) -> float:
    """The score that cameras within two or three degrees of the given ones reach: poses are never exact."""
    best = given
    for step in NUDGES:
        trials = [best, *_nudges(best, step)]
        best = trials[int(rank(views, trials).argmax())]
    return max(agreement_of(views, best).score, agreement_of(views, given).score)


def _nudges(trial: Trial, step: float) -> Iterator[Trial]:
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
    ranks = rank(views, [as_given(views), as_given((first, second))])
    return (first, second) if ranks[1] > ranks[0] else views
