"""The files that a trainer's batch was made of, in the layout that we know, and what is wrong beside them.

They are found before anything is trained. No torch here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family, Question
from pytest_overfit.errors import PairError
from pytest_overfit.errors.asking import NotAsked, Questions
from pytest_overfit.run.sample import Sample
from pytest_overfit.two_view.diagnose.conventions import CONVENTIONS, TURNS
from pytest_overfit.two_view.diagnose.views import SURE, Placed, SourceSeen, SourceView, percent, plain_number

if TYPE_CHECKING:
    from pytest_overfit.two_view.pair.index import PairIndex

# Over real pairs of two scenes and the rendered town, 112 wide, cut to two shapes: depth by nearest neighbour lies 0.39
# to 0.50 pixels to the right of and below its picture, or -0.04 to 0.00 where it is taken at the centre of a pixel;
# intrinsics lie 0.0 to 0.7 pixels from it. A depth that is one pixel off lies at -0.5 or 1.5, or at -1 or 1.
ROUNDED, OFF = (-0.1, 0.6), 0.25
CAMERA_OFF, CAMERA_SHARE = 1.5, 0.01
KEPT = 0.2  # share of the sky that counts; borders of healthy masks leave up to 0.03
TURNED, MOVED, SCALED = 0.5, 0.01, 0.02  # degrees, and shares


def order_of_views(seen: SourceSeen) -> Iterator[Cause]:
    """Images or depths are those of the other view."""
    for what, places in (("images", [v.image for v in seen.views]), ("depths", [v.depth for v in seen.views])):
        if all(place is not None and place.file != view.view for place, view in zip(places, seen.views, strict=True)):
            yield _cause("misalignment", f"batch[{what!r}]", f"the {what} are those of the other view on disk",
                         "the order of the views: one order for images, depths, masks and cameras", {})  # fmt: skip
            return


def depth_beside_picture(seen: SourceSeen) -> Iterator[Cause]:
    """The depth of a view lies elsewhere in its file than the picture does in its own."""
    for view in seen.views:
        image, depth = view.image, view.depth
        if image is None or depth is None or image.file != depth.file:
            continue
        if image.turn != depth.turn:
            what, turn = ("images", image.turn) if image.turn else ("depths", depth.turn)
            do = f"{what}{TURNS.get(turn, '')}: what turned them did not turn the rest"
            yield _cause("misalignment", f"batch[{what!r}], view {view.view}",
                         f"the {what} are {turn}, against their file", do, {})  # fmt: skip
            return
        off = _apart(depth, image, view)
        right, down = _outside(off[0]), _outside(off[1])
        if max(abs(right), abs(down)) > OFF and _worst(depth, image, view) > OFF:
            yield _cause(
                "misalignment", f"batch['depths'], view {view.view}",
                f"the depths lie {off[0]:+.1f} pixels to the right of and {off[1]:+.1f} below their image, found by "
                "laying both over their files (0 to 0.5 is a matter of rounding)",
                "crop, pad and resize depth and masks by the numbers that the image is cropped, padded and resized by",
                {"right": off[0], "down": off[1], "fit": depth.fit},
            )  # fmt: skip
            return


def camera_beside_picture(seen: SourceSeen) -> Iterator[Cause]:
    """The intrinsics say that the picture lies elsewhere in its file than it does."""
    for view in seen.views:
        image, camera = view.image, view.camera
        if image is None or image.file != view.view or image.turn:
            continue
        worst = max(
            math.dist(image.at(*there), camera.at(*there)) for there in _corners(image, view)
        )  # fmt: skip
        if worst > CAMERA_OFF + CAMERA_SHARE * view.width:
            focal = view.focal[0] * image.scale_x, view.focal[1] * image.scale_y
            point = image.at(*view.principal)
            now = view.focal[0] * camera.scale_x, view.focal[1] * camera.scale_y
            at = camera.at(*view.principal)
            yield _cause(
                "misalignment", f"batch['intrinsics'], view {view.view}",
                f"the intrinsics put the content of the image up to {worst:.0f} pixels beside where it lies: fx, fy "
                f"are {now[0]:.1f}, {now[1]:.1f} and cx, cy {at[0]:.1f}, {at[1]:.1f}, the image was resized and cut to "
                f"{focal[0]:.1f}, {focal[1]:.1f} and {point[0]:.1f}, {point[1]:.1f}",
                "scale intrinsics[:2] by the factor of the resize, and subtract the corner of the crop from cx and cy",
                {"pixels": worst, "fx": now[0], "fx right": focal[0], "cx": at[0], "cx right": point[0]},
            )  # fmt: skip
            return


def depth_units(seen: SourceSeen) -> Iterator[Cause]:
    """The depths are a function of those on disk, or have another unit than the other view or the cameras."""
    views = [view for view in seen.views if view.depth is not None]
    for view in views:
        if view.form:
            meaning = CONVENTIONS[view.form]
            yield _cause(meaning.id, f"batch['depths'], view {view.view}",
                         f"the depths are those on disk once {meaning.once.format(of='')}, not as they are",
                         meaning.do.format(at=""), {"fit": view.depth.fit if view.depth else 0.0})  # fmt: skip
            return
    factors = [view.factor for view in views]
    if len(factors) == 2 and not _alike(*factors):
        numbers = " and ".join(plain_number(factor) for factor in factors)
        yield _cause("units", "batch['depths']", f"the depths of the two views are {numbers} times those on disk",
                     "one unit for all views", {"first": factors[0], "second": factors[1]})  # fmt: skip
    elif factors and not _alike(factors[0], seen.pose.factor) and not _posed_wrongly(seen):
        yield _cause(
            "units", "batch['extrinsics'] and batch['depths']",
            f"the depths are {plain_number(factors[0])} times those on disk, the baseline "
            f"{plain_number(seen.pose.factor)} times",
            f"extrinsics[..., :3, 3] * {plain_number(factors[0] / max(seen.pose.factor, 1e-12))}: one unit for both",
            {"depths": factors[0], "baseline": seen.pose.factor},
        )  # fmt: skip


def sky_counts(seen: SourceSeen) -> Iterator[Cause]:
    """The masks on disk say sky, and the batch has depth there."""
    for view in seen.views:
        if view.kept > KEPT:
            other = f", while what it calls {view.label} has none" if view.label is not None else ""
            do = (
                f"leave out label 2: the loader leaves out {view.label}"
                if view.label is not None
                else "depth_map[labels == 2] = 0 before it is resized, by the mask of that image as it lies on disk"
            )
            yield _cause(
                "sky", f"batch['depths'], view {view.view}",
                f"{percent(view.kept)} of what the mask on disk calls sky ({percent(view.sky)} of the view) has depth "
                f"in the batch{other}",
                do, {"sky": view.sky, "kept": view.kept},
            )  # fmt: skip
            return


def cameras_on_disk(seen: SourceSeen) -> Iterator[Cause]:
    """The second camera as seen from the first is another one than on disk."""
    pose = seen.pose
    if pose.same:
        yield _cause("camera-convention", "batch['extrinsics']",
                     "both views have one pose in the batch, and two on disk",
                     "the extrinsics of each view: one pose is handed out for both", {})  # fmt: skip
    elif _posed_wrongly(seen):
        numbers = {"degrees": pose.turned, "moved": pose.moved}
        apart = f"the second camera, seen from the first, is {pose.turned:.3g} degrees"
        apart += f" and {100 * pose.moved:.0f} % of the baseline" if pose.factor else ""
        if pose.change == "order":
            yield _cause("camera-convention", "batch['extrinsics']",
                         f"{apart} away from that on disk, and equal once the views are exchanged",
                         "the order of the views: extrinsics are in another one than images and depths",
                         numbers)  # fmt: skip
        elif pose.change:
            meaning = CONVENTIONS[pose.change]
            yield _cause("camera-convention", "batch['extrinsics']",
                         f"{apart} away from that on disk, and equal once {meaning.once.format(of='')}",
                         meaning.do.format(at=""), numbers)  # fmt: skip
        else:
            yield _cause("camera-convention", "batch['extrinsics']", f"{apart} away from that on disk (cam2world)",
                         "extrinsics = inv(cam2world)[:3] of the same view, turned and scaled with nothing else",
                         numbers)  # fmt: skip


def _posed_wrongly(seen: SourceSeen) -> bool:
    return seen.pose.turned > TURNED or seen.pose.moved > MOVED


def _cause(id: str, where: str, observed: str, do: str, evidence: dict[str, float]) -> Cause:
    return Cause(id, where, observed, do, "shown", evidence, certain=True, weight=SURE)


def _alike(one: float, other: float) -> bool:
    return min(one, other) > 0 and abs(math.log(one / other)) <= SCALED


def _outside(off: float) -> float:
    """By how much a distance in pixels is no matter of rounding."""
    return max(off - ROUNDED[1], 0.0) + min(off - ROUNDED[0], 0.0)


def _corners(image: Placed, view: SourceView) -> list[tuple[float, float]]:
    """Pixels of the file that lie in the corners of the view."""
    return [
        ((u - image.right) / image.scale_x, (v - image.down) / image.scale_y)
        for u in (0, view.width - 1) for v in (0, view.height - 1)
    ]  # fmt: skip


def _apart(one: Placed, other: Placed, view: SourceView) -> tuple[float, float]:
    """From `other` to `one` in pixels, in the middle of the view."""
    u, v = (view.width - 1) / 2, (view.height - 1) / 2
    moved = one.at((u - other.right) / other.scale_x, (v - other.down) / other.scale_y)
    return moved[0] - u, moved[1] - v


def _worst(one: Placed, other: Placed, view: SourceView) -> float:
    return min(
        max(abs(_outside(a - b)) for a, b in zip(one.at(*there), other.at(*there), strict=True))
        for there in _corners(other, view)
    )


RULES: tuple[Callable[[SourceSeen], Iterator[Cause]], ...] = (
    order_of_views, camera_beside_picture, depth_units, depth_beside_picture, cameras_on_disk, sky_counts,
)  # fmt: skip


ROWS = 2**18  # of an index that are looked through at a time
ASKED = "whether the batch is what its files say"


def look_at_source(section: Mapping[str, Any], batch: Mapping[str, Any]) -> SourceSeen | None:
    """A batch beside its files; None where the section names none that we can read.

    Args:
        section: ``data.train`` of a trainer. Of the first mapping in it that has ``ROOT`` and ``split_file``, those,
            ``segmentation_root``, ``remove_sky`` and ``max_depth`` are read.
        batch: as the loader hands it out, before anything is normalised.
    """
    from pytest_overfit.two_view.diagnose.source_geometry import compare_with_files
    from pytest_overfit.two_view.pair.index import locate_pair, read_index
    from pytest_overfit.two_view.pair.readers import read_view

    named = next((one for one in _mappings(section) if "ROOT" in one and "split_file" in one), None)
    if named is None:
        return None
    root, masks = Path(str(named["ROOT"])), named.get("segmentation_root")
    try:
        index = read_index(root / str(named["split_file"]))
        number = _pair_number(batch, index)
        pair = locate_pair(root, root / str(named["split_file"]), masks, number, index=index, follow_links=True)
        raw = [read_view(view) for view in pair.views]
    except PairError:  # another layout, or files that ::pair and the loader speak of
        return None
    limits = {"max_depth": float(named["max_depth"])} if "max_depth" in named else {}
    return compare_with_files(
        batch, pair.seq_name, raw, remove_sky=bool(named.get("remove_sky", True)) and masks is not None, **limits
    )


def causes_of_source(look: Callable[[], SourceSeen | None]) -> tuple[tuple[Cause, ...], tuple[NotAsked, ...]]:
    """What is certainly wrong with a batch, by its files; and what of that could not be asked."""
    questions = Questions()
    seen = questions.ask(ASKED, look, otherwise=None)
    return () if seen is None else tuple(_causes(seen)), tuple(questions.not_asked)


def source_family(sample: Sample) -> tuple[Family, ...]:
    """The question that the data of a sample can answer beside its batch, as a family of causes."""
    look = sample.look
    if look is None:
        return ()
    return (Family("two-view", rules=(_of_source,), questions=(Question(ASKED, lambda context, outputs: look()),)),)


def _of_source(evidence: Evidence) -> Iterator[Cause]:
    seen = evidence.fact(SourceSeen)
    if seen is not None:
        yield from _causes(seen)


def _causes(seen: SourceSeen) -> Iterator[Cause]:
    for rule in RULES:
        yield from rule(seen)


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from _mappings(each)


def _pair_number(batch: Mapping[str, Any], index: PairIndex) -> int:
    """Which pair of the index it is: by its two ids, else by the number in its name, else the first."""
    ids = batch.get("ids")
    if getattr(ids, "ndim", 0) == 2:
        wanted = [int(one) for one in ids[0][:2]]  # type: ignore[index]
        for start in range(0, len(index), ROWS):
            hits = (index.pairs[start : start + ROWS][:, 1:3] == wanted).all(1).nonzero()[0]
            if len(hits):
                return start + int(hits[0])
    names = batch.get("seq_name")
    name = names[0] if isinstance(names, (list, tuple)) and names else names
    found = re.search(r"_(\d+)$", name) if isinstance(name, str) else None
    return int(found[1]) if found else 0
