"""Known-bad models and losses: each has the interface of the good one and one defect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.two_view.reference.multitask_loss import MultitaskLoss
from pytest_overfit.two_view.reference.pose import encode_pose
from tests.support.tiny import Memoriser

Terms = Mapping[str, Tensor]


class FlippedLoss(MultitaskLoss):
    """Gradient ascent: the total has the wrong sign."""

    def forward(self, predictions: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        terms = super().forward(predictions, batch)
        return {**terms, "objective": -terms["objective"]}


class ScrubbingLoss(MultitaskLoss):
    """NaN predictions count as 0, as in the original."""

    def forward(self, predictions: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        poses = [torch.nan_to_num(pose) for pose in predictions["pose_enc_list"]]
        return super().forward({**predictions, "pose_enc_list": poses}, batch)


class NanLaterLoss(MultitaskLoss):
    """The total becomes NaN at the 30th call."""

    calls = 0

    def forward(self, predictions: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        self.calls += 1
        terms = super().forward(predictions, batch)
        return terms if self.calls < 30 else {**terms, "objective": terms["objective"] * torch.nan}


class MetricDepthLoss(MultitaskLoss):
    """Lets the model predict metres, and turns them into the batch's units for itself alone."""

    def forward(self, predictions: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        return super().forward({**predictions, "depth": predictions["depth"] / batch["avg_scale"]}, batch)


class CameraBlindLoss(MultitaskLoss):
    """No camera term at all."""

    def forward(self, predictions: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        terms = super().forward(predictions, batch)
        return {"objective": terms["loss_reg_depth"], "loss_reg_depth": terms["loss_reg_depth"]}


class InPlace(Memoriser):
    """Writes into its input."""

    def forward(self, images: Tensor) -> dict[str, Any]:
        images.mul_(0.999)
        return super().forward(images)


class Raises(Memoriser):
    """Dies in its forward pass."""

    def forward(self, images: Tensor) -> dict[str, Any]:
        raise RuntimeError("the aggregator wants patches of 16 pixels")


class Unused(Memoriser):
    """A head that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.track_head = nn.Linear(4, 4)


class StaleStatistics(Memoriser):
    """Batch statistics in training, and running statistics that never follow in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Parameter(0.45 * torch.randn_like(self.trunk))  # a gap, and far from the widest one
        self.norm = nn.BatchNorm2d(2, momentum=0.0)

    def forward(self, images: Tensor) -> dict[str, Any]:
        return {**super().forward(images), "depth": self.norm(self.trunk).exp()[..., None]}


class Overconfident(nn.Module):
    """Depth 0.02 and cameras 0.03 beside the truth for ever; only its confidence grows (trap 3 of the loss)."""

    pose: Tensor
    truth: Tensor

    def __init__(self, batch: Mapping[str, Any]) -> None:
        super().__init__()
        pose = encode_pose(batch["extrinsics"], batch["intrinsics"], tuple(batch["images"].shape[-2:]))
        self.register_buffer("pose", pose + 0.03)
        self.register_buffer("truth", batch["depths"] + 0.02)
        self.confidence = nn.Parameter(torch.zeros(1, 2, 1, 1))

    def forward(self, images: Tensor) -> dict[str, Any]:
        return {
            "depth": self.truth[..., None],
            "depth_conf": 1 + self.confidence.exp().expand_as(self.truth),
            "pose_enc": self.pose,
            "pose_enc_list": [self.pose] * 4,
        }


class CountingLoss(MultitaskLoss):
    """Every term shrinks with the calls."""

    calls = 0

    def forward(self, predictions: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        self.calls += 1
        return {name: term * 0.95**self.calls for name, term in super().forward(predictions, batch).items()}
