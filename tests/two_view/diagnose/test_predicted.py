"""What a model predicts for two views, against the batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks.gallery.scene import scene_batch
from pytest_overfit.two_view.diagnose.predicted_views import measure_predictions
from pytest_overfit.two_view.diagnose.views import ViewsPredicted
from tests.two_view.diagnose.scenes import (
    Batch,
    causes,
    town,
)


def predicted(batch: Batch, depth: Tensor, **more: Tensor) -> ViewsPredicted:
    seen = measure_predictions({"heads.depth": depth[..., None], **more}, batch)
    assert seen is not None
    return seen


def poses_of(batch: Batch, factor: float = 1.0) -> Tensor:
    shifts = batch["extrinsics"][..., 3]
    return torch.cat([factor * shifts, torch.zeros(*shifts.shape[:2], 6)], -1)


def test_depth_off_by_a_factor_beside_cameras_that_are_not() -> None:
    """With cameras to scale it is a defect for certain, without it may be meant."""
    batch = scene_batch()
    alone = predicted(batch, 4.7 * batch["depths"] + 0.02)
    beside = predicted(batch, 4.7 * batch["depths"] + 0.02, pose_enc=poses_of(batch))
    scaled = predicted(batch, 4.7 * batch["depths"] + 0.02, pose_enc=poses_of(batch, 4.7))
    assert [[(c.id, c.certain) for c in causes(batch, seen)] for seen in (alone, beside, scaled)] == [
        [("scale", False)], [("scale", True)], [("scale", False)],
    ]  # fmt: skip
    assert causes(batch, predicted(batch, batch["depths"] + 0.02)) == []


def test_depth_that_is_wrong_altogether_is_no_matter_of_scale() -> None:
    """A constant, and noise."""
    batch = scene_batch()
    noise = torch.rand(batch["depths"].shape, generator=torch.Generator().manual_seed(0))
    assert causes(batch, predicted(batch, torch.full_like(batch["depths"], 0.05))) == []
    assert causes(batch, predicted(batch, 5 * noise)) == []


def test_predictions_that_are_not_finite_are_left_to_others() -> None:
    """NaN is another cause."""
    batch = scene_batch()
    assert measure_predictions({"depth": batch["depths"] * math.nan}, batch) is None


@pytest.mark.parametrize(
    ("axes", "says"), [((3,), "mirrored"), ((2,), "turned upside down"), ((2, 3), "turned by half a turn"),
                       ((1,), "with its frames in reverse")],
)  # fmt: skip
def test_depth_that_fits_once_it_is_turned_over(axes: tuple[int, ...], says: str) -> None:
    """The loss compared it with something turned: for certain, as it fits so and not as it is."""
    batch = town()
    height, width = batch["depths"].shape[2:]
    batch["depths"] = batch["depths"] * torch.linspace(1, 2, width) * torch.linspace(1, 2, height)[:, None]
    turned = predicted(batch, batch["depths"].flip(axes) * 1.01)
    (cause,) = [each for each in causes(batch, turned) if each.where == "output heads.depth"]
    assert (cause.id, cause.certain, says in cause.observed) == ("target-mismatch", True, True)


def test_depth_that_fits_no_way_is_not_turned_over() -> None:
    """Nor is one that fits as it is, in a scene that is much alike upside down."""
    batch = town()
    noise = 0.5 + torch.rand(batch["depths"].shape, generator=torch.Generator().manual_seed(0))
    assert "target-mismatch" not in [c.id for c in causes(batch, predicted(batch, batch["depths"] * noise))]
    assert causes(batch, predicted(batch, batch["depths"] * 1.02)) == []
