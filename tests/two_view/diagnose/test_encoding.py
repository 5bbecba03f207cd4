"""The encoding that a loss compares, asked of the loss itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.two_view.diagnose.predicted_depth import another_encoding, one_pose_for_all
from pytest_overfit.two_view.diagnose.predicted_views import encoding_compared
from pytest_overfit.two_view.reference.pose import encode_pose
from tests.two_view.diagnose.scenes import town

Encode = Callable[[Tensor], Tensor]


class Head(nn.Module):
    step = 0.0  # between the poses of two frames

    def forward(self, images: Tensor) -> dict[str, Any]:
        pose = torch.zeros(*images.shape[:2], 9) + self.step * torch.arange(images.shape[1])[:, None]
        return {"pose_enc": pose, "pose_enc_list": [pose, pose]}


def compared(encode: Encode, weight: float = 1.0, step: float = 0.0) -> Any:
    """What is found where the targets of a loss are encoded so."""
    batch = town()

    def loss(predictions: dict[str, Any], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        size = batch["images"].shape[-2], batch["images"].shape[-1]
        target = encode(encode_pose(batch["extrinsics"], batch["intrinsics"], size))
        camera = torch.stack([(stage - target).abs().mean() for stage in predictions["pose_enc_list"]]).sum()
        return {"objective": weight * camera, "loss_camera": weight * camera}

    model = Head()
    model.step = step
    task = SimpleNamespace(
        batch=batch, loss=loss, model=model, predictor=model, predict=lambda given: model(given["images"])
    )
    return encoding_compared(task)


def named(seen: Any) -> list[str]:
    return [cause.observed for cause in another_encoding(SimpleNamespace(fact=lambda kind: seen))]  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [1.0, 50.0])
def test_nothing_is_said_of_the_right_encoding(weight: float) -> None:
    """Whatever it is weighted by."""
    assert named(compared(lambda pose: pose, weight)) == []


def test_nothing_is_said_where_no_encoding_is_free() -> None:
    """A loss with targets of its own is not blamed."""
    assert named(compared(lambda pose: pose + torch.linspace(0.1, 0.9, 9))) == []


@pytest.mark.parametrize(
    ("encode", "says"),
    [
        (
            lambda p: torch.cat([p[..., :3], p[..., [6, 3, 4, 5]], p[..., 7:]], -1),
            "the quaternion has its scalar first",
        ),
        (lambda p: p[..., [3, 4, 5, 6, 0, 1, 2, 7, 8]], "the quaternion comes before the translation"),
        (lambda p: p[..., [0, 1, 2, 3, 4, 5, 6, 8, 7]], "the field of view of the width comes first"),
        (lambda p: torch.cat([p[..., :7], p[..., 7:] / 2], -1), "the field of view is halved"),
        (lambda p: torch.cat([-p[..., :3], p[..., 3:]], -1), "the translation is negated"),
        (lambda p: p * p.new_tensor([1, 1, 1, -1, -1, -1, 1, 1, 1]), "the rotation is inverted"),
        (lambda p: p.flip(1), "the frames come in reverse"),
    ],
)
def test_another_encoding_is_named(encode: Encode, says: str) -> None:
    """By what makes the true cameras cost nothing."""
    found = named(compared(encode))
    assert len(found) == 1
    assert says in found[0]


def test_two_changes_at_once_are_named() -> None:
    """Scalar first, and the field of view in degrees."""
    scale = torch.tensor([1.0] * 7 + [180 / torch.pi] * 2)
    found = named(compared(lambda p: (p * scale)[..., [0, 1, 2, 6, 3, 4, 5, 7, 8]]))
    assert "scalar first and the field of view is in degrees" in found[0]


@pytest.mark.parametrize(("step", "ids"), [(0.0, ["constant-output"]), (1e-3, [])])
def test_one_pose_for_all_frames_is_named(step: float, ids: list[str]) -> None:
    """The true cameras differ; a model that tells the frames apart, however little, is left alone."""
    seen = compared(lambda pose: pose, step=step)
    assert [(cause.id, cause.certain) for cause in causes(seen, (1.0, 0.5))] == [(each, True) for each in ids]


def causes(seen: Any, curve: tuple[float, ...]) -> list[Cause]:
    """The causes that are named where the camera's term went along a curve."""
    record = SimpleNamespace(curves={seen.term: curve})
    return list(one_pose_for_all(SimpleNamespace(fact=lambda kind: seen, record=record)))  # type: ignore[arg-type]


@pytest.mark.parametrize("curve", [(), (1.0,), (1.0, 1.0), (math.nan, math.nan)])
def test_one_pose_of_a_head_that_has_not_learned_is_not_certain(curve: tuple[float, ...]) -> None:
    """It may be how the head begins."""
    assert [cause.certain for cause in causes(compared(lambda pose: pose, step=0.0), curve)] == [False]


def test_poses_that_are_not_finite_are_not_one() -> None:
    """NaN compares with nothing, neither in the prediction nor in the batch."""
    seen = compared(lambda pose: pose, step=0.0)
    for change in ({"told": math.nan}, {"apart": math.nan}, {"told": math.inf}, {"apart": math.inf, "told": math.inf}):
        assert not causes(replace(seen, **change), (1.0, 0.5))
