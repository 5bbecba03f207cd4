"""Is a pair fit to be memorised? Enough depth in every frame, two different views, and geometry that agrees.

Works on plain arrays, so that it can judge a pair on disk (`check_pair`) or the frames of a training batch
(`check_views`). Depth is z in one common unit (metres on disk), 0 = invalid; world2cam has OpenCV axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.lost_depth import Lost, factor_in_range, why_lost
from pytest_overfit.two_view.pair.pair_files import DepthArray, PairFiles, RawView, clean_depth
from pytest_overfit.two_view.pair.readers import read_view
from pytest_overfit.two_view.pair.reprojection import TOLERANCE, Agreement, degrees_between, look_up, view_agreement
from pytest_overfit.untrusted.files import odd_kind

MIN_VALID = 100
MIN_VALID_RATIO = 0.05
MIN_OVERLAP = 0.05
# Measured: true pairs reach 0.13 (a pose that is 4 % off), wrong poses start at 0.25, most lie above 0.8.
MAX_CONTRADICTION = 0.18
FLAT = 3.0  # of 255 levels: what compression makes of one colour
SWAPPED = 0.5  # of a correlation: that of true pairs, rendered and real ones, is 0.83 to 0.99
ALIKE = "degenerate-batch"


@dataclass(frozen=True)
class CheckedView:
    """One frame as arrays: `image` of any layout, `depth` (H, W), `intrinsics` (3, 3), `world2cam` (3, 4) or (4, 4).

    `lost`: why its file has so little depth left, where that is known.
    """

    name: str
    image: npt.NDArray[Any]
    depth: npt.NDArray[Any]
    intrinsics: npt.NDArray[Any]
    world2cam: npt.NDArray[Any]
    lost: Lost | None = None


@dataclass(frozen=True)
class FrameStats:
    """Size in pixels, valid depths, and their range in the unit of the depth (0 where none is valid)."""

    name: str
    height: int
    width: int
    valid: int
    nearest: float
    farthest: float

    @property
    def ratio(self) -> float:
        """The share of the pixels that have a valid depth."""
        return self.valid / max(self.height * self.width, 1)


@dataclass(frozen=True)
class PairCheck:
    """One verdict: `problem` is None where it holds; `observed` are the numbers either way; what to `do`, and where.

    `cause` is the id of the cause that says more of it; empty where there is none.
    """

    name: str
    observed: str
    problem: str | None = None
    do: str | None = None
    place: Path | None = None
    cause: str = ""


@dataclass(frozen=True)
class PairReport:
    """Numbers and verdicts; `agreements` holds the first frame looked up in the second, and the reverse.

    `missing` are the masks that should be there; then there are no agreements.
    """

    frames: tuple[FrameStats, ...]
    agreements: tuple[Agreement, ...]
    checks: tuple[PairCheck, ...]
    missing: tuple[Path, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence per failed check; empty for a sound pair."""
        return tuple(check.problem for check in self.checks if check.problem is not None)

    def headline(self) -> str:
        """One line, such as `valid 86.6 % and 52.8 %, geometry contradicts in 0.2 %`."""
        shares = " and ".join(f"{100 * frame.ratio:.1f} %" for frame in self.frames)
        if not self.agreements:
            return f"valid {shares}, geometry not judged"
        worst = max(contradiction(agreement) for agreement in self.agreements)
        return f"valid {shares}, geometry contradicts in {100 * worst:.1f} %"


def check_pair(
    files: PairFiles, *, remove_sky: bool = True, max_depth: float = 2000.0, depth_percentile: float = 98.0
) -> PairReport:
    """Read the pair and judge it as the training would see it: without sky, far depths and outliers.

    Args:
        files: the pair.
        remove_sky: whether sky pixels lose their depth; then a view without a mask is a problem.
        max_depth: metres beyond which depth is invalid.
        depth_percentile: p cuts depths above the p-th and below the (100 - p)-th percentile.

    Raises:
        PairError: a file cannot be read.
    """
    raw = [read_view(view) for view in files.views]
    views = [
        checked_view(view, remove_sky=remove_sky, max_depth=max_depth, depth_percentile=depth_percentile)
        for view in raw
    ]
    if any(_too_few(_stats(view)) for view in views):
        views = _explained(raw, views, remove_sky=remove_sky, max_depth=max_depth)
    without_mask = {view.files.tag: view.files.no_mask for view in raw if remove_sky and view.labels is None}
    return check_views(views, without_mask=without_mask)


def checked_view(
    view: RawView, *, remove_sky: bool = True, max_depth: float = 2000.0, depth_percentile: float = 98.0
) -> CheckedView:
    """A view from disk with the depth that training would leave valid; arguments as in `check_pair`."""
    labels = view.labels if remove_sky else None
    depth = clean_depth(view.depth, labels, max_depth=max_depth, depth_percentile=depth_percentile)
    return CheckedView(view.files.tag, view.image, depth, view.camera.intrinsics, view.camera.world2cam)


def _explained(
    raw: Sequence[RawView], views: Sequence[CheckedView], *, remove_sky: bool, max_depth: float
) -> list[CheckedView]:
    """The views, and what took the depth of those that have next to none left."""

    def agree(depths: Sequence[DepthArray]) -> bool:
        first, second = (
            checked_view(replace(view, depth=depth), remove_sky=remove_sky, max_depth=max_depth)
            for view, depth in zip(raw, depths, strict=True)
        )
        return not check_views([first, second]).problems

    factor = factor_in_range(raw, agree, max_depth=max_depth)
    why = [why_lost(view, remove_sky=remove_sky, max_depth=max_depth, factor=factor) for view in raw]
    return [replace(view, lost=lost) if _too_few(_stats(view)) else view for view, lost in zip(views, why, strict=True)]


def check_views(
    views: Sequence[CheckedView], *, without_mask: Mapping[str, Path | None] = MappingProxyType({})
) -> PairReport:
    """Judge frames as arrays.

    Args:
        views: two or more frames; each one is judged against the first.
        without_mask: names of the frames whose sky cannot be removed although it should be, and where their masks are
            looked for. Then sky may carry depth, and the agreement of the views is not judged.

    Raises:
        PairError: fewer than two frames.
    """
    if len(views) < 2:
        raise PairError(f"{len(views)} frames", where="check_views", allowed="two or more")
    frames = tuple(_stats(view) for view in views)
    checks = [_check_valid(view, frame) for view, frame in zip(views, frames, strict=True)]
    if not any(view.lost is not None and view.lost.mask for view in views):  # else it is told there
        checks.append(_check_masks(without_mask))
    agreements: list[Agreement] = []
    for view in views[1:]:
        images, poses = _check_images(views[0], view), _check_poses(views[0], view)
        geometry = []
        if not without_mask and all(check.problem is None for check in checks[: len(views)]):
            both = [view_agreement(views[0], view), view_agreement(view, views[0])]
            agreements += both
            geometry = [_check_geometry(views[0].name, view.name, both)]
        if images.problem is None and geometry and geometry[0].problem is None:  # else they see other points
            images = replace(images, problem=_exchanged_colours(views[0], view))
        checks += [images, poses, *geometry]
    missing = tuple(path for path in without_mask.values() if path is not None)
    return PairReport(frames, tuple(agreements), tuple(checks), missing)


def contradiction(agreement: Agreement) -> float:
    """Of the points that the other view should see, the share that it sees through; 1 where nothing agrees."""
    judged = agreement.agree + agreement.violation
    return agreement.violation / judged if agreement.agree > 0 else 1.0


def _stats(view: CheckedView) -> FrameStats:
    valid = view.depth[view.depth > 0]
    height, width = view.depth.shape
    nearest, farthest = (float(valid.min()), float(valid.max())) if valid.size else (0.0, 0.0)
    return FrameStats(view.name, height, width, int(valid.size), nearest, farthest)


def _check_valid(view: CheckedView, frame: FrameStats) -> PairCheck:
    name = f"valid depth of {view.name}"
    total = frame.height * frame.width
    share = f"{100 * frame.ratio:.1f} %"
    span = f" in [{frame.nearest:.2f}, {frame.farthest:.2f}]" if frame.valid else ""
    observed = f"{frame.valid} of {total} pixels ({share}){span}"
    wrong = int((~np.isfinite(view.depth)).sum())
    if wrong:
        return PairCheck(name, observed, f"{view.name}: {wrong} of {total} depths are NaN or infinite")
    if view.lost is not None:
        told, lost = f"{view.name}: {view.lost.told}", view.lost
        cause = "sky" if lost.mask else ""
        return PairCheck(name, f"{observed}; {lost.told}", told, lost.do, lost.place, cause)
    if frame.valid == 0:
        return PairCheck(name, observed, f"{view.name}: no valid depth at all, the frame supervises nothing")
    if _too_few(frame):
        least = max(MIN_VALID, int(np.ceil(MIN_VALID_RATIO * total)))
        return PairCheck(
            name, observed, f"{view.name}: {frame.valid} of {total} depths ({share}) are valid, at least {least} needed"
        )
    return PairCheck(name, observed)


def _too_few(frame: FrameStats) -> bool:
    return frame.valid < MIN_VALID or frame.ratio < MIN_VALID_RATIO


def _check_masks(without_mask: Mapping[str, Path | None]) -> PairCheck:
    if not without_mask:
        return PairCheck("sky masks", "present, or sky is not removed")
    names = " and ".join(without_mask)
    found = [f"{path} is {odd_kind(path) or 'not there'}" for path in without_mask.values() if path is not None]
    where = f" ({', '.join(found)})" if found else ""
    problem = (
        f"remove_sky is on, but {names} has no mask{where}: its sky keeps a bogus "
        "depth; add the mask or set remove_sky: false"
    )
    return PairCheck("sky masks", f"missing for {names}", problem, cause="sky")


def _check_images(a: CheckedView, b: CheckedView) -> PairCheck:
    name = f"images of {a.name} and {b.name} differ"
    if a.image.shape != b.image.shape:
        return PairCheck(name, f"shapes {a.image.shape} and {b.image.shape}")
    difference = float(np.abs(a.image.astype(np.float64) - b.image.astype(np.float64)).mean())
    observed = f"mean difference {difference:.3g}"
    if difference == 0:
        return PairCheck(name, observed, f"{a.name} and {b.name} are the same image", cause=ALIKE)
    for view, colours in ((view, _colours(view)) for view in (a, b)):
        if colours is not None and max(np.ptp(colours, axis=(0, 1))) < FLAT:
            return PairCheck(name, observed, f"{view.name} is one colour everywhere, {_one(colours)}", cause=ALIKE)
    return PairCheck(name, observed)


def _exchanged_colours(a: CheckedView, b: CheckedView) -> str | None:
    """That one of two images has its channels in another order than the other one."""
    if (follow := _colours_follow(a, b)) >= -SWAPPED:
        return None
    return (
        f"one of {a.name} and {b.name} has red and blue exchanged: red less blue of the points that both see "
        f"correlates by {follow:.2f}; was it written or read as BGR, as cv2 does?"
    )


def _colours(view: CheckedView) -> npt.NDArray[np.float64] | None:
    """The image as (H, W, 3) of 0 to 255; None where it has no three channels, or not the size of the depth."""
    image = np.moveaxis(view.image, 0, -1) if view.image.shape[:1] == (3,) else view.image
    if image.shape != (*view.depth.shape, 3):
        return None
    whole = np.issubdtype(image.dtype, np.integer) or image.max() > 1
    return image.astype(np.float64) * (1.0 if whole else 255.0)


def _one(colours: npt.NDArray[np.float64]) -> str:
    return f"({', '.join(f'{value:.0f}' for value in colours[0, 0])})"


def _colours_follow(a: CheckedView, b: CheckedView) -> float:
    """How far red less blue of points that both views see is alike, from 1 to -1; 0 where there is nothing to tell."""
    first, second = _colours(a), _colours(b)
    if first is None or second is None or not (a.depth > 0).any() or not np.isfinite(a.depth).all():
        return 0.0
    found = look_up(a, b)
    met = np.abs(found.excess) < TOLERANCE
    rows, columns = np.rint(found.v[met]).astype(np.int64), np.rint(found.u[met]).astype(np.int64)
    here, there = first[found.rows[met], found.columns[met]], second[rows, columns]
    ours, theirs = here[:, 0] - here[:, 2], there[:, 0] - there[:, 2]
    if len(ours) < MIN_VALID or min(ours.std(), theirs.std()) < FLAT:
        return 0.0
    return float(np.corrcoef(ours, theirs)[0, 1])


def _check_poses(a: CheckedView, b: CheckedView) -> PairCheck:
    (rotation_a, shift_a), (rotation_b, shift_b) = ((view.world2cam[:3, :3], view.world2cam[:3, 3]) for view in (a, b))
    degrees = degrees_between(rotation_b, rotation_a)
    metres = float(np.linalg.norm(rotation_b.T @ shift_b - rotation_a.T @ shift_a))
    observed = f"{degrees:.3g} degrees and {metres:.3g} apart"
    scale = float(np.median(a.depth[a.depth > 0])) if (a.depth > 0).any() else 1.0
    same = np.array_equal(a.world2cam, b.world2cam) or (degrees < 1e-3 and metres < 1e-5 * scale)
    problem = f"{a.name} and {b.name} have the same pose: there is no motion to learn" if same else None
    return PairCheck(f"poses of {a.name} and {b.name} differ", observed, problem, cause=ALIKE)


def _check_geometry(name_a: str, name_b: str, both: Sequence[Agreement]) -> PairCheck:
    """Both directions count: points pushed too far away look occluded in one and contradict in the other."""
    name = f"geometry of {name_a} and {name_b}"
    observed = "; ".join(
        f"{a} in {b}: {100 * one.projected:.1f} % meet depth, of these {100 * one.agree:.1f} % agree, "
        f"{100 * one.occluded:.1f} % are occluded, {100 * one.violation:.1f} % contradict "
        f"(median error {100 * one.error:.2f} %)"
        for (a, b), one in zip(((name_a, name_b), (name_b, name_a)), both, strict=True)
    )
    overlap = min(one.projected for one in both)
    worst = max(contradiction(one) for one in both)
    cause = (
        "is cam2world stored as world2cam, in OpenGL axes, for the other view, or in another unit than depth; are the "
        "intrinsics those of another image size?"
    )
    problem = None
    if overlap < MIN_OVERLAP:
        problem = (
            f"only {100 * overlap:.1f} % of the valid depth of one view meets valid depth of the other, at least "
            f"{100 * MIN_OVERLAP:.0f} % needed to confirm the cameras: {cause}"
        )
    elif worst > MAX_CONTRADICTION:
        problem = (
            f"depth and cameras contradict: {100 * worst:.1f} % of the points that both views should see do not agree, "
            f"at most {100 * MAX_CONTRADICTION:.0f} % allowed: {cause}"
        )
    return PairCheck(name, observed, problem)
