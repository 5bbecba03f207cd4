"""The checks of a pair: true pairs pass, every wrong convention of cameras and depth is found."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pytest_overfit.errors import PairError
from pytest_overfit.text.translations import translated
from pytest_overfit.two_view.pair.check import (
    CheckedView,
    PairReport,
    check_pair,
    check_views,
    checked_view,
    contradiction,
)
from pytest_overfit.two_view.pair.exr_depth import write_exr
from pytest_overfit.two_view.pair.index import locate_pair
from pytest_overfit.two_view.pair.pair_files import FloatArray, PairFiles, RawView
from pytest_overfit.two_view.pair.readers import read_view
from pytest_overfit.two_view.pair.reprojection import view_agreement
from pytest_overfit.two_view.pair.synthetic import RenderedSource, render_views
from tests.shared_data import shared_data

REAL = [f"real {number}" for number in range(5)]
TOWNS = [f"town {seed}" for seed in range(10)]
PAIRS = [*REAL, "golden", *TOWNS]


@cache
def _town(seed: int) -> tuple[RawView, RawView]:
    return render_views(seed, 320, 240, Path("town"), Path("town_seg"))


def _raw(name: str) -> tuple[RawView, RawView]:
    """The views of a real pair, of the golden one, or of a rendered town."""
    kind, _, number = name.partition(" ")
    if kind == "town":
        return _town(int(number))
    if kind == "golden":
        root = shared_data("golden", "pair0")
        files = locate_pair(root, root / "train.npz", root / "seg", 0)
    else:
        root = shared_data("real_rgbd", "cropped")
        files = locate_pair(root, root / "train.npz", shared_data("real_rgbd", "cropped_seg"), int(number))
    return read_view(files.views[0]), read_view(files.views[1])


def _views(name: str, **options: Any) -> list[CheckedView]:
    return [checked_view(view, **options) for view in _raw(name)]


def _posed(view: CheckedView, cam2world: FloatArray) -> CheckedView:
    return replace(view, world2cam=np.linalg.inv(cam2world))


def _pose(view: CheckedView) -> FloatArray:
    return np.asarray(np.linalg.inv(view.world2cam), dtype=np.float64)


def _transposed(pose: FloatArray) -> FloatArray:
    turned: FloatArray = pose.copy()
    turned[:3, :3] = pose[:3, :3].T
    return turned


def _moved(pose: FloatArray, scale: float) -> FloatArray:
    moved: FloatArray = pose.copy()
    moved[:3, 3] *= scale
    return moved


FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
MISTAKES: dict[str, Any] = {
    "world2cam stored as cam2world": lambda a, b: (_posed(a, a.world2cam), _posed(b, b.world2cam)),
    "OpenGL axes": lambda a, b: (_posed(a, _pose(a) @ FLIP), _posed(b, _pose(b) @ FLIP)),
    "OpenGL axes in one view": lambda a, b: (a, _posed(b, _pose(b) @ FLIP)),
    "rotation transposed": lambda a, b: (_posed(a, _transposed(_pose(a))), _posed(b, _transposed(_pose(b)))),
    "cameras swapped": lambda a, b: (
        replace(a, world2cam=b.world2cam, intrinsics=b.intrinsics),
        replace(b, world2cam=a.world2cam, intrinsics=a.intrinsics),
    ),
    "poses swapped": lambda a, b: (replace(a, world2cam=b.world2cam), replace(b, world2cam=a.world2cam)),
    "depth of the first view doubled": lambda a, b: (replace(a, depth=2 * a.depth), b),
    "depth of the second view doubled": lambda a, b: (a, replace(b, depth=2 * b.depth)),
    "depth of the first view halved": lambda a, b: (replace(a, depth=a.depth / 2), b),
    "depth of the first view 10 % too far": lambda a, b: (replace(a, depth=1.1 * a.depth), b),
    "translation in millimetres": lambda a, b: (_posed(a, _moved(_pose(a), 1e3)), _posed(b, _moved(_pose(b), 1e3))),
    "depth mirrored": lambda a, b: (replace(a, depth=a.depth[:, ::-1]), replace(b, depth=b.depth[:, ::-1])),
}
# Over a baseline of decimetres a translation that is 10 % off moves nothing by more than the noise of a Kinect.
WIDE_BASELINE_MISTAKES: dict[str, Any] = {
    "translation 10 % too long": lambda a, b: (_posed(a, _moved(_pose(a), 1.1)), _posed(b, _moved(_pose(b), 1.1))),
    "translation 10 % too short": lambda a, b: (_posed(a, _moved(_pose(a), 0.9)), _posed(b, _moved(_pose(b), 0.9))),
}


@pytest.mark.parametrize("name", PAIRS)
def test_true_pairs_pass(name: str) -> None:
    """Real frames, the golden pair and rendered towns have no problem, with a distance to every limit."""
    report = check_views(_views(name))
    assert report.problems == ()
    assert len(report.agreements) == 2
    assert all(contradiction(agreement) < 0.14 for agreement in report.agreements)
    assert all(agreement.projected > 0.25 for agreement in report.agreements)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", PAIRS)
def test_wrong_cameras_and_depth_are_found(name: str, mistake: str) -> None:
    """Each wrong convention is found on every pair, also on two frames that are 2 degrees apart."""
    (problem,) = check_views(MISTAKES[mistake](*_views(name))).problems
    assert problem.startswith(("depth and cameras contradict: ", "only "))


@pytest.mark.parametrize("mistake", WIDE_BASELINE_MISTAKES)
@pytest.mark.parametrize("name", ["golden", *TOWNS])
def test_wrong_scale_of_the_translation_is_found(name: str, mistake: str) -> None:
    """A translation that is 10 % off is found where the cameras are far apart."""
    (problem,) = check_views(WIDE_BASELINE_MISTAKES[mistake](*_views(name))).problems
    assert problem.startswith("depth and cameras contradict: ")


@pytest.mark.parametrize("name", TOWNS)
def test_sky_that_keeps_its_bogus_depth_is_found(name: str) -> None:
    """A rendered pair whose sky is left in contradicts itself, with or without a mask to blame."""
    (problem,) = check_views(_views(name, remove_sky=False)).problems
    assert problem.startswith("depth and cameras contradict: ")


def test_text_of_a_contradiction() -> None:
    """The problem gives the share found, the share allowed and what to look at."""
    (problem,) = check_views(MISTAKES["depth of the first view doubled"](*_views("town 0"))).problems
    assert problem == (
        "depth and cameras contradict: 100.0 % of the points that both views should see do not agree, "
        "at most 18 % allowed: is cam2world stored as world2cam, in OpenGL axes, for the other view, or in another "
        "unit than depth; "
        "are the intrinsics those of another image size?"
    )


def test_text_of_too_little_overlap() -> None:
    """Views that hardly meet cannot be confirmed, and the problem says how much they meet."""
    a, b = _views("town 0")
    away = _pose(b)
    away[0, 3] += 500
    (problem,) = check_views([a, _posed(b, away)]).problems
    assert problem == (
        "only 0.0 % of the valid depth of one view meets valid depth of the other, at least 5 % needed to confirm the "
        "cameras: is cam2world stored as world2cam, in OpenGL axes, for the other view, or in another unit than depth; "
        "are the intrinsics those of another image size?"
    )


def _flat(name: str, *, shift: float = 0.0, depth: float = 4.0, seed: int = 0) -> CheckedView:
    """A wall at `depth`, seen head on from a camera moved sideways."""
    image = np.random.default_rng(seed).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    k = np.array([[50.0, 0, 19.5], [0, 50.0, 14.5], [0, 0, 1]])
    pose = np.eye(4)
    pose[0, 3] = -shift
    return CheckedView(name, image, np.full((30, 40), depth), k, pose)


def test_agreement_of_a_known_plane() -> None:
    """A wall 4 m away and a camera moved by 0.8 m: 10 of 40 columns leave the view, everything else agrees."""
    a, b = _flat("a"), _flat("b", shift=0.8)
    agreement = view_agreement(a, b)
    assert (agreement.valid, agreement.projected) == (1200, 0.75)
    assert (agreement.agree, agreement.occluded, agreement.violation) == (1, 0, 0)
    assert agreement.error < 1e-12


@pytest.mark.parametrize(("depth", "field"), [(5.0, "violation"), (3.0, "occluded"), (4.1, "agree")])
def test_in_front_is_a_violation_and_behind_is_occluded(depth: float, field: str) -> None:
    """A point in front of the surface that the other view measured contradicts it; one behind it may be hidden."""
    a, b = _flat("a"), _flat("b", depth=depth)
    agreement = view_agreement(replace(a, world2cam=a.world2cam[:3]), replace(b, world2cam=b.world2cam[:3]))
    assert getattr(agreement, field) == 1


def test_agreement_without_valid_depth() -> None:
    """A view without depth agrees with nothing, in either place, and nothing breaks."""
    a, b = _flat("a"), _flat("b", depth=0.0)
    one = view_agreement(b, a)
    other = view_agreement(a, b)
    assert (one.valid, one.projected, one.agree) == (0, 0, 0)
    assert (other.valid, other.projected, other.agree) == (1200, 0, 0)
    assert np.isnan(one.error)


def test_statistics_of_a_frame() -> None:
    """Counts, ratio and range are of the valid depths only."""
    view = _flat("a")
    view.depth[:, :10] = 0
    view.depth[0, 20] = 9.5
    report = check_views([view, _flat("b", shift=0.4, seed=1)])
    frame = report.frames[0]
    assert (frame.height, frame.width, frame.valid, frame.ratio) == (30, 40, 900, 0.75)
    assert (frame.nearest, frame.farthest) == (4.0, 9.5)
    assert report.checks[0].observed == "900 of 1200 pixels (75.0 %) in [4.00, 9.50]"
    assert report.headline().startswith("valid 75.0 % and 100.0 %, geometry contradicts in 0.")


def _problems(a: CheckedView, b: CheckedView, **options: Any) -> tuple[str, ...]:
    return check_views([a, b], **options).problems


def test_frames_with_too_little_depth() -> None:
    """No depth, fewer than 100 and fewer than 5 % valid depths are three different sentences."""
    good, few, sparse = _flat("a"), _flat("b", shift=0.4, seed=1), _flat("c", shift=0.4, seed=2)
    few.depth.flat[99:] = 0
    big = CheckedView("c", sparse.image, np.zeros((300, 400)), sparse.intrinsics, sparse.world2cam)
    big.depth[:, 0] = 4
    assert _problems(good, few) == ("b: 99 of 1200 depths (8.2 %) are valid, at least 100 needed",)
    assert _problems(good, big) == ("c: 300 of 120000 depths (0.2 %) are valid, at least 6000 needed",)
    none = replace(few, depth=np.zeros((30, 40)))
    assert _problems(none, good) == ("b: no valid depth at all, the frame supervises nothing",)


def test_dummy_batch_is_found() -> None:
    """The all-zero batch that stands for a failed load elsewhere fails every check that can be made."""
    zero = CheckedView("a", np.zeros((3, 30, 40)), np.zeros((30, 40)), np.zeros((3, 3)), np.zeros((3, 4)))
    problems = _problems(zero, replace(zero, name="b"))
    assert [text.split(":")[0] for text in problems[:2]] == ["a", "b"]
    assert "a and b are the same image" in problems
    assert "a and b have the same pose: there is no motion to learn" in problems


def test_depth_that_is_not_finite() -> None:
    """NaN in the depth of a batch is counted."""
    view = _flat("a")
    view.depth[2:4, 5] = np.nan
    assert _problems(view, _flat("b", shift=0.4, seed=1)) == ("a: 2 of 1200 depths are NaN or infinite",)


def test_same_image_and_same_pose() -> None:
    """Two views of one image, or from one pose, are no pair; a tiny motion is one."""
    a = _flat("a")
    assert _problems(a, replace(_flat("b", shift=0.4), image=a.image)) == ("a and b are the same image",)
    assert _problems(a, _flat("b", seed=1)) == ("a and b have the same pose: there is no motion to learn",)
    assert _problems(a, _flat("b", shift=0.001, seed=1)) == ()


def test_an_image_of_one_colour_is_found() -> None:
    """Up to what compression makes of it."""
    a, b = _flat("a"), _flat("b", shift=0.4, seed=1)
    black = replace(b, image=np.zeros_like(b.image) + 2)
    assert _problems(a, black) == ("b is one colour everywhere, (2, 2, 2)",)
    assert [check.cause for check in check_views([a, black]).checks if check.problem] == ["degenerate-batch"]


def test_red_and_blue_of_one_view_are_exchanged() -> None:
    """Of points that both views see; of both views alike nobody can know."""
    first, second = _views("town 0")
    last = -1 if first.image.shape[-1] == 3 else 0
    swapped = replace(second, image=np.flip(second.image, axis=last))
    (problem,) = _problems(first, swapped)
    assert "red and blue exchanged" in problem
    assert _problems(replace(first, image=np.flip(first.image, axis=last)), swapped) == ()


def test_motion_in_degrees_and_units() -> None:
    """The motion between two poses is given as an angle and the distance of the camera centres."""
    a, b = _flat("a"), _flat("b", shift=0.5, seed=1)
    turn = np.eye(4)
    angle = np.radians(3.0)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    checks = check_views([a, replace(b, world2cam=turn @ b.world2cam)]).checks
    assert checks[4].observed == "3 degrees and 0.5 apart"


def test_one_frame_is_no_pair() -> None:
    """Fewer than two frames is an error."""
    with pytest.raises(PairError, match=r"^check_views: 1 frames\n  allowed: two or more$"):
        check_views([_flat("a")])


def test_sky_goes_before_the_percentiles_and_only_on_request() -> None:
    """A checked view keeps the depths that training keeps: the percentiles are those without the sky."""
    raw = _raw("town 0")[1]
    assert raw.labels is not None
    depth = checked_view(raw, max_depth=40.0).depth
    kept = raw.depth[(raw.labels != 2) & (raw.depth <= 40)]
    low, high = np.percentile(kept, [2, 98])
    assert (np.sort(depth[depth > 0]) == np.sort(kept[(kept >= low) & (kept <= high)])).all()
    assert (raw.depth > 0).all()
    assert (checked_view(raw, remove_sky=False, depth_percentile=100.0).depth == raw.depth).all()


def test_missing_mask_is_a_problem_only_where_sky_is_removed(town_pair: PairFiles) -> None:
    """With remove_sky on, a view without a mask is named together with the two ways out."""
    bare = replace(town_pair, views=(town_pair.views[0], replace(town_pair.views[1], mask=None)))
    sentence = (
        "remove_sky is on, but ground.jpeg has no mask: its sky keeps a bogus depth; "
        "add the mask or set remove_sky: false"
    )
    assert sentence in check_pair(bare).problems
    assert sentence not in check_pair(bare, remove_sky=False).problems


def test_pair_on_disk(town_pair: PairFiles, town: RenderedSource) -> None:
    """A pair on disk is judged as training would see it, and an unreadable file is an error."""
    report: PairReport = check_pair(town_pair)
    assert report.problems == ()
    assert [frame.name for frame in report.frames] == ["aerial.jpeg", "ground.jpeg"]
    assert all(check.problem is None for check in report.checks)
    (town.source_root / "0001" / "aerial.jpeg.exr").write_bytes(b"")
    with pytest.raises(PairError, match=r"aerial\.jpeg\.exr"):
        check_pair(town_pair)


def _scaled(files: PairFiles, factor: float) -> PairFiles:
    for view in files.views:
        write_exr(view.depth, np.float32(factor) * read_view(view).depth)
    return files


def test_depth_in_millimetres_is_told_with_its_range_and_its_factor(town_pair: PairFiles) -> None:
    report = check_pair(_scaled(town_pair, 1000))
    assert len(report.problems) == 2
    for problem, check in zip(report.problems, report.checks, strict=False):
        assert ": depth in millimetres, in range times 0.001: its file holds " in problem
        assert problem.endswith("above max_depth: 2000")
        assert check.observed.startswith("0 of ")
        assert check.do is not None
        assert check.do.startswith("depth * 0.001 in ")
        for text in (problem, check.do):
            assert "毫米" in translated(text, "zh") or "单位为米" in translated(text, "zh")


def test_depth_beyond_any_unit_is_told_the_key(town_pair: PairFiles) -> None:
    report = check_pair(_scaled(town_pair, 1e9))
    assert all("above max_depth: 2000" in problem and "times" not in problem for problem in report.problems)


def test_an_inverted_sky_mask_is_told_with_what_its_complement_would_leave(town_pair: PairFiles) -> None:
    for view in town_pair.views:
        labels = read_view(view).labels
        assert labels is not None
        assert view.mask is not None
        Image.fromarray(np.where(labels == 2, 0, 2).astype(np.uint8)).save(view.mask)
    report = check_pair(town_pair)
    assert report.problems == (
        "aerial.jpeg: its sky mask is inverted: it leaves 0.0 % of the pixels with depth, and its complement would "
        "leave 100.0 %",
    )
    assert not [check for check in report.checks if check.name == "sky masks"]
    assert translated(report.problems[0], "zh").startswith("aerial.jpeg：天空掩码取反了")
