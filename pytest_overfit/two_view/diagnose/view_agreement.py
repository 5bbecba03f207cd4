"""Depths, cameras and images of two views that do not belong together: conventions, units, flips and crops.

A batch is accused only where one changed thing makes views agree that do not agree as given, in depth and in colour: a
healthy batch has no better explanation than itself, and a batch of noise has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.two_view.diagnose.conventions import meaning_of
from pytest_overfit.two_view.diagnose.views import (
    SURE,
    TOLERANCES,
    Agreement,
    Change,
    Pair,
    Picture,
    Plateau,
    ViewsPredicted,
    ViewsSeen,
    percent,
    plain_number,
)

# The score that a change must reach, and the largest part of it that the given batch may have. Of sound pairs, rendered
# and real, those that score 0.4 or more have nine tenths of the score of their best change; with less, all stay below.
CLEAR, MARGIN = 0.4, 0.6
# Where most agrees either way: the least share that disagrees as given, and how many times smaller it must become.
FAULTS, FEWER = 0.2, 5.0
SURFACES, LANDED, PIXELS, PEAK, NUDGED = 0.55, 0.25, 150, 0.95, 0.75
MARKED = ("principal point at the centre", "intrinsics transposed", "intrinsics in shares")  # seen by the numbers alone
COLOUR, COLOURLESS, ABOVE_CHANCE = 0.7, 0.8, 0.3
LEAST_FACTORS: Mapping[str, float] = {"baseline": 1.5, "intrinsics scaled": 1.25,
                                    "focal length scaled": 1.25, "depth scaled": 1.1}  # fmt: skip


def clear_change(pair: Pair) -> Change | None:
    """The change without which the two views do not agree; None where no change is clearly better."""
    change = next(iter(pair.changes), None)
    if change is None:
        return None
    given, after = pair.given, change.agreement
    enough = after.landed >= LANDED and after.landed * after.pixels >= PIXELS and after.agree[1] >= SURFACES
    nudged = 1.0 if change.name in MARKED else NUDGED
    if not enough or change.beside > PEAK * after.score or pair.nudged > nudged * after.score:
        return None
    if math.isnan(after.colour):
        depth = sum(after.agree) / len(after.agree) * math.sqrt(after.landed)
        if after.agree[1] < COLOURLESS or change.chance > depth - ABOVE_CHANCE:
            return None
    elif after.colour < COLOUR:
        return None
    least = LEAST_FACTORS.get(change.name, 1.0)
    if abs(math.log(change.factor)) < math.log(least) or after.score < CLEAR:
        return None
    return change if given.score <= MARGIN * after.score or _far_fewer_faults(given, after) else None


def _far_fewer_faults(given: Agreement, after: Agreement) -> bool:
    """Most of the scene agrees either way (a floor, a wall), and all of the rest only after the change."""
    faults, left = 1 - given.agree[1], 1 - after.agree[1]
    lands = after.landed >= 0.8 * given.landed and after.score > given.score
    return lands and faults >= FAULTS and faults >= FEWER * left and given.before >= 2 * after.before


def views_disagree(views: ViewsSeen, predicted: ViewsPredicted | None) -> Iterator[Cause]:
    """Cameras, units and flips: the views agree once exactly one thing is changed."""
    for pair in views.pairs:
        change = clear_change(pair)
        if change is None:
            continue
        view = None if change.view is None else pair.first + change.view
        meaning = meaning_of(change)
        words = {
            "of": "" if view is None else f" of view {view}",
            "at": "" if view is None else f"[:, {view}]",
            "factor": plain_number(change.factor),
        }
        given, after = pair.given, change.agreement
        once = meaning.once.format(**words)
        observed = (
            f"the views agree once {once}: {percent(after.meeting)} of the pixels of views {pair.first} and "
            f"{pair.second} lie on the other view's surface within {100 * TOLERANCES[1]:g} % then, "
            f"{percent(given.meeting)} as given"
        )
        evidence = {"agree": given.meeting, "agree changed": after.meeting, **_known("colour", given.colour)}
        evidence |= _known("colour changed", after.colour)
        if change.name in LEAST_FACTORS:
            evidence["factor"] = change.factor
        places = f"batch[{meaning.key!r}], " + (_both(pair) if view is None else f"view {view}")
        yield Cause(
            meaning.id, places, observed, meaning.do.format(**words), "shown", evidence, certain=True, weight=SURE
        )


# Times less of the correlation that is missing, and of the colour difference; or a correlation that comes from nothing.
BETTER, BETTER_LEAST, SHARPER = 4.0, 0.85, 1.5
FITTING = 0.93  # correlation that needs no better
RISE, RISE_LEAST, MUCH_SHARPER = 0.35, 0.6, 2.0
ROUGH, NUDGED_OFF = 1.5, 2.5  # what fine texture costs, and how far a camera that is a little off must stay behind
TEXTURE, LEAST_TEXTURE = 2.5, 0.05  # how far a few pixels aside fit worse, where there is texture to tell by
MOVED, ALONE_MOVED = 0.04, 0.12  # one image alone also looks shifted if its camera is a little off


def pictures_lie_off(views: ViewsSeen, predicted: ViewsPredicted | None) -> Iterator[Cause]:
    """Depths and cameras agree, and the images fit them better elsewhere: a crop or a flip of the images alone."""
    for pair in views.pairs:
        picture, given = pair.picture, pair.given
        if picture is None or not picture.name or clear_change(pair) is not None:
            continue
        sound = given.agree[1] >= 0.7 and given.before <= 0.15 and given.landed >= LANDED
        if not sound or not _clear_picture(picture, views):
            continue
        which = "the images" if picture.view is None else f"the image of view {pair.first + picture.view}"
        once, do = _move(picture, which, views)
        observed = (
            f"the colours fit once {once}: those of one surface in views {pair.first} and {pair.second} correlate by "
            f"{picture.best:.2f} then, by {picture.given:.2f} as given, and depths and cameras agree"
        )
        evidence = {"colour": picture.given, "colour changed": picture.best, "right": picture.right * views.width,
                    "down": picture.down * views.height, "zoom": picture.zoom}  # fmt: skip
        places = "batch['images'], " + (_both(pair) if picture.view is None else f"view {pair.first + picture.view}")
        yield Cause("misalignment", places, observed, do, "shown", evidence, certain=True, weight=SURE)


def _clear_picture(picture: Picture, views: ViewsSeen) -> bool:
    sharper = picture.difference / max(picture.best_difference, 1e-9)
    better = 1 - picture.given >= BETTER * (1 - picture.best) and picture.given <= FITTING
    better = better and picture.best >= BETTER_LEAST and sharper >= SHARPER and picture.name != "zoomed"
    rises = picture.best >= max(RISE_LEAST, picture.given + RISE) and sharper >= MUCH_SHARPER
    blurred = picture.aside_difference >= max(LEAST_TEXTURE, SHARPER * picture.best_difference)
    textured = blurred and 1 - picture.aside >= TEXTURE * (1 - picture.best)
    innocent = 1 - picture.given < ROUGH * picture.rough or 1 - picture.nudged < NUDGED_OFF * (1 - picture.best)
    if picture.pixels < PIXELS or innocent or not textured or not (rises or better):
        return False
    if picture.name != "shifted":
        return True
    pixels = max(abs(picture.right) * views.width, abs(picture.down) * views.height)
    least = MOVED if picture.view is None else ALONE_MOVED
    return pixels >= 2 and max(abs(picture.right), abs(picture.down)) >= least


def _move(picture: Picture, which: str, views: ViewsSeen) -> tuple[str, str]:
    """What makes the images fit, and what to change."""
    verb = "are" if picture.view is None else "is"
    if picture.name == "shifted":
        by = _by(-picture.right * views.width, -picture.down * views.height)
        return f"{which} {verb} moved {by}", f"crop depths, point_masks and intrinsics with {which}, by the same corner"
    if picture.name == "zoomed":
        resized = "reduced" if picture.zoom > 1 else "enlarged"
        once = f"{which} {verb} {resized} by about {max(picture.zoom, 1 / picture.zoom):.2g}"
        return once, f"resize and crop depths, point_masks and intrinsics with {which}"
    if picture.name == "exchanged":
        return f"{which} are exchanged", "the order of the views: images are in another one than depths and cameras"
    return f"{which} {verb} {picture.name}", f"turn depths, point_masks and cameras with {which}, or none of them"


def principal_point(views: ViewsSeen, predicted: ViewsPredicted | None) -> Iterator[Cause]:
    """A principal point by one factor off the middle in both axes: intrinsics of another image size."""
    if any(pair.given.score >= CLEAR or clear_change(pair) for pair in views.pairs):
        return
    for frame in views.frames:
        x, y = frame.principal
        if abs(x - y) <= 0.03 * max(x, y) and x >= 0.95:
            yield Cause(
                "misalignment", f"batch['intrinsics'], view {frame.view}",
                f"the principal point lies at {100 * x:.0f} % of the width and {100 * y:.0f} % of the height",
                f"intrinsics[..., :2, :] * {0.5 / x:.3g} if they belong to images of another size; a crop moves it too",
                evidence={"x": x, "y": y}, weight=0.5,
            )  # fmt: skip
            return


def _by(right: float, down: float) -> str:
    """Pixels in words: "about 4 pixels left and 1 down"."""
    across, along = round(right), round(down)
    parts = [f"{abs(across)} pixels {'right' if across > 0 else 'left'}"] if across else []
    parts += [f"{abs(along)} pixels {'down' if along > 0 else 'up'}"] if along else []
    return f"by about {' and '.join(parts)}"


def _both(pair: Pair) -> str:
    return f"views {pair.first} and {pair.second}" + (f" of sample {pair.sample}" if pair.sample else "")


def _known(name: str, value: float) -> dict[str, float]:
    return {} if math.isnan(value) else {name: value}


def blind_views(views: ViewsSeen, predicted: ViewsPredicted | None) -> Iterator[Cause]:
    """One of several views has next to no valid pixel: nothing is learnt about it."""
    blind = [frame for frame in views.frames if frame.valid < 0.01]
    if blind and len(blind) < len(views.frames):
        yield Cause(
            "vacuous", f"view {blind[0].view}",
            f"{blind[0].valid:.2%} of the pixels of view {blind[0].view} are valid, and up to "
            f"{max(f.valid for f in views.frames):.0%} of the others",
            "look at the mask and the depth file of that view",
            evidence={"valid": blind[0].valid}, certain=True, weight=0.9,
        )  # fmt: skip


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
            "sky", f"batch['point_masks'], view {worst.view}",
            f"{percent(worst.without)} of the pixels that point_masks counts have depth {worst.empty:g}, a connected "
            "part of the view: sky, or holes",
            "point_masks &= depths > 0, and depth 0 where the sky is",
            evidence={"without depth": worst.without, "depth": worst.empty}, certain=True, weight=SURE,
        )  # fmt: skip


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


RULES = (
    views_disagree, pictures_lie_off, principal_point, blind_views, depth_missing, depth_invented, points_scaled,
)  # fmt: skip
