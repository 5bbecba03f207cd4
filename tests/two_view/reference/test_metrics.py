"""Predictions against ground truth in the units people read."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pytest_overfit.two_view.application import compare_predictions
from pytest_overfit.two_view.reference.pose import encode_pose
from tests.support.batches import two_view_batch


def predictions(batch: dict[str, Any]) -> dict[str, Any]:
    """What a perfect model predicts."""
    pose = encode_pose(batch["extrinsics"], batch["intrinsics"], (42, 56))
    return {"depth": batch["depths"][..., None].clone(), "pose_enc_list": [pose * 0, pose]}


def test_a_perfect_prediction_has_no_error() -> None:
    """Zero everywhere, and no translation angle for the first camera, which is the origin."""
    batch = two_view_batch()
    first, second = compare_predictions(predictions(batch), batch)
    assert first.abs_rel == 0.0
    assert first.delta_1_25 == 1.0
    assert first.translation_deg is None
    assert second.translation_deg == pytest.approx(0.0, abs=0.05)
    assert second.rotation_deg == pytest.approx(0.0, abs=0.05)


def test_rounding_in_the_first_camera_is_no_direction() -> None:
    """A translation of a millionth is the origin, not a vector with an angle."""
    batch = two_view_batch()
    batch["extrinsics"][0, 0, :, 3] = torch.tensor([2e-6, -1e-6, 3e-6])
    assert compare_predictions(predictions(batch), batch)[0].translation_deg is None


def test_depth_errors_are_relative_and_in_metres() -> None:
    """10 % too far is an AbsRel of 0.1; the mean error in metres is that of the scene's scale."""
    batch = two_view_batch()
    wrong = predictions(batch)
    wrong["depth"] *= 1.1
    frame = compare_predictions(wrong, batch)[0]
    assert frame.abs_rel == pytest.approx(0.1, rel=1e-4)
    assert frame.delta_1_25 == 1.0
    assert frame.mae == pytest.approx(0.1, rel=1e-3)
    assert frame.mae_metres == pytest.approx(3.0, rel=1e-3)


def test_a_factor_beyond_the_threshold_leaves_delta() -> None:
    """delta < 1.25 counts pixels within a factor of 1.25 in either direction."""
    batch = two_view_batch()
    wrong = predictions(batch)
    wrong["depth"] = wrong["depth"] / 1.3
    assert compare_predictions(wrong, batch)[0].delta_1_25 == 0.0


def test_invalid_pixels_do_not_count() -> None:
    """Only pixels with true depth are compared."""
    batch = two_view_batch()
    wrong = predictions(batch)
    wrong["depth"][0, 0, :10] = 99.0
    batch["point_masks"][0, 0, :10] = False
    assert compare_predictions(wrong, batch)[0].abs_rel == 0.0


def test_camera_errors_are_angles() -> None:
    """A camera turned by 5 degrees and moved at a right angle to where it should be."""
    batch = two_view_batch()
    turn = math.radians(5)
    moved = batch["extrinsics"].clone()
    moved[0, 1, :, :3] = torch.tensor(
        [[math.cos(turn), 0, math.sin(turn)], [0, 1, 0], [-math.sin(turn), 0, math.cos(turn)]]
    )
    moved[0, 1, :, 3] = torch.tensor([0.1, 0.3, 0.0])
    batch["extrinsics"][0, 1, :, 3] = torch.tensor([0.3, -0.1, 0.0])
    pose = encode_pose(moved, batch["intrinsics"], (42, 56))
    frame = compare_predictions({"pose_enc": pose}, batch)[1]
    assert frame.rotation_deg == pytest.approx(5.0, abs=0.01)
    assert frame.translation_deg == pytest.approx(90.0, abs=0.01)
    assert frame.translation_metres == pytest.approx(30 * math.hypot(0.2, 0.4), rel=1e-3)
    assert frame.abs_rel is None


@pytest.mark.parametrize("given", [{}, {"logits": torch.ones(1)}, torch.ones(2), None])
def test_other_predictions_are_not_compared(given: Any) -> None:
    """No depth and no pose: nothing is claimed."""
    frames = compare_predictions(given, two_view_batch())
    assert all(frame.abs_rel is None and frame.rotation_deg is None for frame in frames)
