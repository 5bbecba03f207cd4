"""Depths and points that are no surface: sky and holes that count, plateaus, points of another scale."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.two_view.diagnose.view_agreement import clear_change
from pytest_overfit.two_view.diagnose.views import Plateau, ViewsPredicted, ViewsSeen
from pytest_overfit.two_view.diagnose.words import SURE, percent, plain_number


def blind_views(views: ViewsSeen, predicted: ViewsPredicted | None) -> Iterator[Cause]:
    """One of several views has next to no valid pixel: nothing is learnt about it."""
    blind = [frame for frame in views.frames if frame.valid < 0.01]
    if blind and len(blind) < len(views.frames):
        yield Cause(
            "vacuous",
            f"view {blind[0].view}",
            f"{blind[0].valid:.2%} of the pixels of view {blind[0].view} are valid, and up to "
            f"{max(f.valid for f in views.frames):.0%} of the others",
            "look at the mask and the depth file of that view",
            evidence={"valid": blind[0].valid},
            certain=True,
            weight=0.9,
        )


def depth_missing(views: ViewsSeen, predicted: ViewsPredicted | None) -> Iterator[Cause]:
    """The mask counts pixels that have no depth, or no pixel at all."""
    if views.masked and views.frames and all(frame.valid == 0 for frame in views.frames):
        yield Cause(
            "vacuous", "batch['point_masks']", "point_masks is false everywhere: no depth is supervised",
            "point_masks = depths > 0", "shown", {"valid": 0.0}, weight=0.9,
        )  # fmt: skip
    frames = [frame for frame in views.frames if 0.01 <= frame.without <= 0.95]
    if frames:
        worst = max(frames, key=lambda frame: frame.without)
        yield Cause(
            "sky",
            f"batch['point_masks'], view {worst.view}",
            f"{percent(worst.without)} of the pixels that point_masks counts have depth {worst.empty:g}, a connected "
            "part of the view: sky, or holes",
            "point_masks &= depths > 0, and depth 0 where the sky is",
            evidence={"without depth": worst.without, "depth": worst.empty},
            certain=True,
            weight=SURE,
        )


# Share that cannot be a surface, and share of the rest that agrees: of a number in one view, and in both. A plane that
# one camera sees at one depth everywhere is none for a camera that is turned.
ALONE, SHARED = (0.6, 0.8), (0.5, 0.7)
BEYOND, FAR_BEYOND, APART = 3.0, 10.0, 1.15
LEFT_OUT = 0.05


def depth_invented(views: ViewsSeen, predicted: ViewsPredicted | None) -> Iterator[Cause]:
    """One and the same number over a part of a view, where the cameras rule out a surface, or far behind the scene."""
    unsure = {pair.sample for pair in views.pairs if clear_change(pair)}
    for plateau in sorted(views.plateaus, key=lambda plateau: -plateau.contradicted):
        impossible = _impossible(plateau) and plateau.sample not in unsure
        if impossible or _far_behind(plateau):
            yield _invented(plateau, impossible)
            return


def _impossible(plateau: Plateau) -> bool:
    contradicted, rest = SHARED if len(plateau.views) > 1 else ALONE
    if len(plateau.views) > 1 and plateau.beyond >= BEYOND:
        contradicted /= 2
    # Depth that is clipped looks the same, and is often meant.
    clipped = plateau.apart < APART and plateau.left_out < LEFT_OUT
    return plateau.contradicted >= contradicted and plateau.rest >= rest and not clipped


def _far_behind(plateau: Plateau) -> bool:
    if math.isnan(plateau.met):
        return plateau.beyond >= FAR_BEYOND
    return plateau.beyond >= BEYOND and plateau.met <= 0.3 and plateau.rest >= 0.5


def _invented(plateau: Plateau, impossible: bool) -> Cause:
    which = " and ".join(f"view {view}" for view in plateau.views)
    observed = f"{percent(plateau.share)} of the pixels that count in {which} have depth {plateau.depth:.6g} exactly"
    if impossible:
        observed += (
            f"; {percent(plateau.contradicted)} of them cannot be a surface under the cameras, while "
            f"{percent(plateau.rest)} of the others agree"
        )
    else:
        observed += f", {plateau.beyond:.3g} times as far as the rest"
    advice = f"leave them out of point_masks: depth {plateau.depth:.6g} stands for sky or for nothing"
    if plateau.left_out >= LEFT_OUT:
        observed += f"; point_masks leaves out {percent(plateau.left_out)} of the pixels, on which both views agree"
        advice = "leave out the label of the sky: the mask leaves out another one (off by one?)"
    evidence = {
        "share": plateau.share, "depth": plateau.depth, "contradicted": plateau.contradicted,
        "rest agrees": plateau.rest, "times as far": plateau.beyond, "left out": plateau.left_out,
    }  # fmt: skip
    where = f"batch['depths'] and batch['point_masks'], {which}"
    weight = SURE if impossible else 0.6
    return Cause("sky", where, observed, advice, "shown", evidence, certain=impossible, weight=weight)


def points_scaled(views: ViewsSeen, predicted: ViewsPredicted | None) -> Iterator[Cause]:
    """Points that are those of depths and cameras, but for one factor."""
    for points in views.points:
        if points.residual <= 0.03 and abs(math.log(points.factor)) >= math.log(1.1):
            yield Cause(
                "units", f"batch[{points.key!r}]",
                f"{points.key} are {plain_number(points.factor)} times the points of depths, intrinsics and extrinsics",
                f"{points.key} / {plain_number(points.factor)}: normalise points, depths and translations by one scale",
                "shown", {"factor": points.factor, "residual": points.residual}, weight=0.85,
            )  # fmt: skip


RULES = (blind_views, depth_missing, depth_invented, points_scaled)
