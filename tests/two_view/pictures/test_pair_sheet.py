"""The contact sheet of a pair: points lie where the cameras put them, errors show, captions hold their numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.check import CheckedView
from pytest_overfit.two_view.pair.index import locate_pair
from pytest_overfit.two_view.pair.pair_files import PairFiles
from pytest_overfit.two_view.pair.synthetic import render_source
from pytest_overfit.two_view.pictures.drawing import INVALID, clipped, text_width, wrapped
from pytest_overfit.two_view.pictures.pair_panels import (
    OCCLUDED,
    SKY,
    ShownView,
    class_shares,
    depth_panel,
    depth_range,
    error_panel,
    mask_panel,
    median_error,
    points_panel,
    seen_from,
    views_of_batch,
    views_on_disk,
)
from pytest_overfit.two_view.pictures.pair_sheet import PANEL, contact_sheet, save_sheet

RED = (250, 10, 20)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PairFiles:
    """A rendered pair of 160 x 120 pixels; read only."""
    source = render_source(tmp_path_factory.mktemp("town"), seed=1, width=160, height=120)
    return locate_pair(source.source_root, source.source_npz, source.source_seg_root, 0)


def shown(depth: Any, *, shift: float = 0.0, labels: Any = None, name: str = "a.jpeg", colour: Any = RED) -> ShownView:
    """A view of one colour: focal length 50, the principal point in the middle, `shift` metres to the right."""
    depth = np.asarray(depth, np.float32)
    height, width = depth.shape
    image = np.full((height, width, 3), colour, np.uint8)
    k = np.array([[50.0, 0, width // 2], [0, 50.0, height // 2], [0, 0, 1]])
    pose = np.eye(4)
    pose[0, 3] = -shift
    return ShownView("0001", CheckedView(name, image, depth, k, pose), labels)


def one_point(row: int = 20, column: int = 40, metres: float = 10.0) -> npt.NDArray[np.float32]:
    depth = np.zeros((48, 64), np.float32)
    depth[row, column] = metres
    return depth


def zoomed(view: ShownView, factor: float) -> ShownView:
    """The view with another focal length than its image was taken with."""
    k = view.arrays.intrinsics.copy()
    k[0, 0] *= factor
    k[1, 1] *= factor
    return replace(view, arrays=replace(view.arrays, intrinsics=k))


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.5])
def test_a_known_point_lies_where_the_cameras_put_it(scale: float) -> None:
    """One metre to the right at a depth of 10 m and a focal length of 50: five pixels to the left."""
    source = shown(one_point())
    target = shown(np.full((48, 64), 10.0), shift=1.0, colour=(90, 90, 90), name="b.jpeg")
    found = seen_from(source, target)
    assert (found.u.tolist(), found.v.tolist(), found.excess.tolist()) == ([35.0], [20.0], [0.0])
    panel = points_panel(source, target, found, scale=scale)
    assert panel.shape == (round(48 * scale), round(64 * scale), 3)
    rows, columns = np.nonzero((panel == RED).all(-1))
    at = round(20.5 * scale - 0.5), round(35.5 * scale - 0.5)
    assert (rows.min(), columns.min()) == at
    assert len(rows) == 4


def test_the_sheet_has_the_point_in_the_panel_of_the_other_view() -> None:
    """Through the layout: the panel's place, its scale, and the pixel in it."""
    views = (shown(one_point()), shown(np.full((48, 64), 10.0), shift=1.0, colour=(90, 90, 90), name="b.jpeg"))
    sheet = contact_sheet(views, title="pair")
    left, top, scale = sheet.places[1][3]
    assert scale == PANEL / 64
    at = top + round(20.5 * scale - 0.5), left + round(35.5 * scale - 0.5)
    assert tuple(sheet.panel[at]) == RED
    left, top, scale = sheet.places[0][0]
    assert tuple(sheet.panel[top + 5, left + 5]) == RED


def test_hidden_points_are_not_drawn() -> None:
    """A wall in front of the point: it is occluded, which is no contradiction."""
    source, target = shown(one_point()), shown(np.full((48, 64), 5.0), shift=1.0, colour=(90, 90, 90))
    found = seen_from(source, target)
    assert not (points_panel(source, target, found) == RED).all(-1).any()
    assert tuple(error_panel(source, found)[20, 40]) == OCCLUDED
    assert np.isnan(median_error(seen_from(source, shown(np.zeros((48, 64)), shift=1.0))))


def test_a_point_in_front_of_the_surface_is_an_error() -> None:
    """The other view sees through it: 10 m where it measures 20 m is 50 % off."""
    found = seen_from(shown(one_point()), shown(np.full((48, 64), 20.0), shift=1.0))
    assert median_error(found) == pytest.approx(0.5)


def test_wrong_intrinsics_show_a_large_error(pair: PairFiles) -> None:
    """A true pair is off by less than a percent; a focal length that is 40 % off by many times as much."""
    first, second = views_on_disk(pair)
    wrong = zoomed(second, 1.4)
    assert median_error(seen_from(first, second)) < 0.01
    assert median_error(seen_from(first, wrong)) > 0.03
    assert contact_sheet((first, second), title="true").report.problems == ()
    (problem,) = contact_sheet((first, wrong), title="wrong").report.problems
    assert problem.startswith("depth and cameras contradict")


def test_sky_and_missing_depth_have_colours_of_their_own() -> None:
    """Light blue and grey; everything else on one scale for both views."""
    depth = np.full((2, 3), 4.0, np.float32)
    depth[0, :2] = 0
    labels = np.array([[2, 7, 7], [7, 7, 7]], np.uint8)
    near, far = shown(depth, labels=labels), shown(np.full((2, 3), 8.0))
    low, high = depth_range([near, far])
    assert (low, high) == (4.0, 8.0)
    panel = depth_panel(near, low, high)
    assert tuple(panel[0, 0]) == SKY
    assert tuple(panel[0, 1]) == INVALID
    assert (panel[1] == panel[0, 2]).all()
    assert (depth_panel(far, low, high)[0, 0] != panel[0, 2]).any()
    mask = mask_panel(near)
    assert mask is not None
    assert tuple(mask[0, 0]) == SKY
    assert [(label, round(share, 3)) for label, share, _ in class_shares([near, far])] == [(7, 0.833), (2, 0.167)]
    assert mask_panel(far) is None


def test_the_views_of_a_batch_carry_their_labels_along(pair: PairFiles) -> None:
    """Masks go through the crops and the resize of the depth: what was sky has no depth."""
    views = views_of_batch(pair, img_size=56, aspect_ratio=0.75, patch_size=14)
    for view, whole in zip(views, views_on_disk(pair), strict=True):
        assert view.labels is not None
        assert whole.labels is not None
        assert view.labels.shape == view.arrays.depth.shape == (42, 56)
        assert not view.arrays.depth[view.labels == 2].any()
        assert set(np.unique(view.labels)) <= set(np.unique(whole.labels))
    assert [label for label, _, _ in class_shares(views) if label == 2] == [2]


def test_views_of_two_sizes_share_a_sheet(tmp_path: Path) -> None:
    """A portrait beside a landscape, one without mask and without any depth, names that are far too long."""
    tall = shown(np.zeros((90, 40)), name=f"{'very_' * 30}long.jpeg")
    wide = shown(np.full((30, 70), 3.0), labels=np.zeros((30, 70), np.uint8), name="b.jpeg")
    sheet = contact_sheet((tall, wide), title="x" * 500, subtitle="/a" * 500)
    assert sheet.places[0][0][2] == PANEL / 90
    assert sheet.places[1][0][2] == PANEL / 70
    assert any("no valid depth at all" in problem for problem in sheet.report.problems)
    save_sheet(tmp_path / "sheet.png", sheet)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (sheet.panel.shape[1], sheet.panel.shape[0])
    for row in sheet.places:  # between the columns there is nothing but paper
        for (left, top, _), (after, _, _) in pairwise(row):
            gap = sheet.panel[top : top + 60, left + PANEL + 2 : after - 1]
            assert (gap == 255).all()


def test_a_pair_without_any_depth_is_an_error() -> None:
    """There is no scale to draw it on."""
    with pytest.raises(PairError, match="no valid depth at all"):
        contact_sheet((shown(np.zeros((4, 4))), shown(np.zeros((4, 4)))), title="empty")


def test_text_fits_its_room() -> None:
    """Names lose their middle, sentences their end."""
    assert clipped("short", 17, 400) == "short"
    cut = clipped("0001_083_a_very_long_name_of_a_scene.jpeg", 17, 200)
    assert cut.startswith("0001")
    assert cut.endswith(".jpeg")
    assert text_width(cut, 17) <= 200
    lines = wrapped("one two three four five six seven eight nine ten", 17, 120, lines=2)
    assert len(lines) == 2
    assert lines[1].endswith("...")
    assert all(text_width(line, 17) <= 120 for line in lines)
    assert wrapped("one two", 17, 400, lines=2) == ["one two"]
