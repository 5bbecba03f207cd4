"""Cameras as frusta: where they stand, and how far a prediction is off."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pytest_overfit.two_view.application import take_pictures
from pytest_overfit.two_view.pair.pair_files import Camera, FramePicture
from pytest_overfit.two_view.pictures.cameras import (
    PREDICTED,
    TRUE,
    camera_errors,
    cameras_panel,
    draw_cameras,
    frustum,
)
from pytest_overfit.two_view.pictures.frames import cameras_svg
from pytest_overfit.two_view.reference.pose import encode_pose
from tests.support.batches import two_view_batch


def pictures_of(shift: float = 0.0, **predictions: Any) -> tuple[FramePicture, ...]:
    """The frames of the plane, with the true cameras predicted, or shifted ones."""
    batch = two_view_batch()
    pose = encode_pose(batch["extrinsics"], batch["intrinsics"], (42, 56))
    pose[..., 0] += shift
    return take_pictures({"pose_enc": pose, **predictions}, batch).frames


def count(panel: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    """How many pixels below the legend have a colour."""
    return int((panel[80:] == colour).all(-1).sum())


def test_a_frustum_has_its_corners_where_the_image_has_them() -> None:
    """The rays through the outer corners of the corner pixels, in the axes of the world."""
    turned = np.array([[0.0, 0, 1, 5], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])  # looks along x, stands at x = 5
    camera = Camera(np.array([[10.0, 0, 9.5], [0, 10, 9.5], [0, 0, 1]]), turned)
    corners = frustum(camera, (20, 20), 2.0)
    assert corners[0].tolist() == [5, 0, 0]
    assert corners[1].tolist() == [7, -2, 2]
    assert corners[3].tolist() == [7, 2, -2]
    assert corners[5][1] < -2  # the mark is above the image: y points down


def test_cameras_come_back_from_their_encoding() -> None:
    """The prediction decodes to the true pose, up to rounding."""
    for picture in pictures_of():
        assert picture.camera is not None
        assert picture.predicted_camera is not None
        degrees, distance = camera_errors(picture.camera, picture.predicted_camera)
        assert degrees < 1e-3
        assert distance < 1e-6


def test_a_prediction_that_is_off_is_measured_and_seen_beside_the_truth() -> None:
    """Right on top of the broad lines of the truth, or away from them."""
    right, wrong = pictures_of(), pictures_of(shift=0.3)
    assert wrong[1].camera is not None
    assert wrong[1].predicted_camera is not None
    assert camera_errors(wrong[1].camera, wrong[1].predicted_camera)[1] == pytest.approx(0.3)
    on_top, beside = cameras_panel(right), cameras_panel(wrong)
    assert on_top is not None
    assert beside is not None
    assert on_top.shape == beside.shape == (600, 800, 3)
    assert count(on_top, PREDICTED) > 100
    assert count(on_top, TRUE) < count(beside, TRUE)


def test_a_camera_far_away_does_not_shrink_the_scene() -> None:
    """The view is that of the truth."""
    near, far = cameras_panel(pictures_of(shift=0.0)), cameras_panel(pictures_of(shift=1e4))
    assert near is not None
    assert far is not None
    assert count(far, PREDICTED) == 0
    assert count(far, TRUE) >= count(near, TRUE)


@pytest.mark.parametrize("pose", [torch.full((1, 2, 9), torch.nan), torch.zeros(1, 2, 9)])
def test_a_camera_that_is_none_is_left_out(pose: torch.Tensor) -> None:
    """Numbers that are not finite, and a quaternion of zeros."""
    pictures = pictures_of(pose_enc=pose)
    assert [picture.predicted_camera for picture in pictures] == [None, None]
    panel = cameras_panel(pictures)
    assert panel is not None
    assert count(panel, PREDICTED) == 0
    assert count(panel, TRUE) > 100


def test_frames_without_cameras_or_without_depth() -> None:
    """No picture without a camera; cameras alone are a picture."""
    pictures = pictures_of()
    assert cameras_panel([replace(picture, camera=None) for picture in pictures]) is None
    assert cameras_panel([]) is None
    blind = [replace(picture, valid=np.zeros_like(picture.valid)) for picture in pictures]
    assert cameras_panel(blind) is not None
    assert cameras_panel(pictures[:1]) is not None


@pytest.mark.parametrize("turn", [np.diag([-1.0, -1, 1, 1]), np.diag([-1.0, 1, -1, 1]), np.diag([1.0, -1, -1, 1])])
def test_cameras_that_oppose_each_other_are_drawn(turn: npt.NDArray[np.float64]) -> None:
    """One upside down, one that looks back, both: no mean direction is needed."""
    first, second = pictures_of()
    assert second.camera is not None
    turned = replace(second, camera=Camera(second.camera.intrinsics, second.camera.cam2world @ turn))
    panel = cameras_panel([first, turned])
    assert panel is not None
    assert count(panel, TRUE) > 100


def test_cameras_that_look_straight_down_are_drawn() -> None:
    """Side by side in one pose but for the place."""
    down = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 5], [0, 0, 0, 1]])
    pictures = [replace(picture, camera=Camera(np.diag([50.0, 50, 1]), down)) for picture in pictures_of()]
    panel = cameras_panel(pictures)
    assert panel is not None
    assert count(panel, TRUE) > 100


def test_the_page_has_them_as_vectors_with_text() -> None:
    """Frusta as paths of both colours, every label as text; a reader of screens gets the numbers."""
    drawing = draw_cameras(pictures_of(shift=0.3))
    assert drawing is not None
    root = ElementTree.fromstring(cameras_svg(drawing))
    name = "{http://www.w3.org/2000/svg}"
    texts = [str(each.text) for each in root.iter(f"{name}text") if "zh" not in str(each.get("class")).split()]
    assert {"ground truth", "prediction", "frame 0", "frame 1"} <= set(texts)
    assert any("degrees and 0.3 of the scene's scale off" in text for text in texts)
    assert all(text in str(root.findtext(f"{name}title")) for text in texts)
    strokes = [each.get("stroke") for each in root.iter(f"{name}path")]
    assert strokes == ["#168248"] * 2 + ["#e2580c"] * 2
    assert draw_cameras([]) is None


def test_a_picture_says_the_same_in_chinese() -> None:
    """Beside each text one that the address `cameras.svg#zh` shows; on a phone the names grow, and the numbers go."""
    drawing = draw_cameras(pictures_of(shift=0.3))
    assert drawing is not None
    root = ElementTree.fromstring(cameras_svg(drawing))
    name = "{http://www.w3.org/2000/svg}"
    of = [str(each.text) for each in root.iter(f"{name}text") if "zh" in str(each.get("class")).split()]
    assert {"真值", "预测", "第 0 帧", "第 1 帧"} <= {*of}
    assert root.find(f"{name}g[@id='zh']") is not None
    said = [str(each.text) for each in root.iter(f"{name}text") if "said" in str(each.get("class")).split()]
    assert said
    assert all("0.3" in each for each in said)
    assert "@media (max-width: 480px) { text { font-size: 21px } .said { display: none !important } }" in cameras_svg(
        drawing
    )


def test_a_prediction_is_tied_to_its_camera() -> None:
    """A thin line from each true camera to the one that was predicted for it."""
    drawing = draw_cameras(pictures_of(shift=0.3))
    assert drawing is not None
    true, guess = drawing.frusta[:2], drawing.frusta[2:]
    for gap, one, other in zip(drawing.gaps, true, guess, strict=True):
        assert gap.tolist() == [one.corners[0].tolist(), other.corners[0].tolist()]
    assert cameras_svg(drawing).count("stroke-dasharray") == 2
