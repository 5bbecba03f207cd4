"""The loss of a training step: cameras and depth, each with a weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from train_utils.poses import encode


class PairLoss(nn.Module):
    """``loss(predictions, batch)`` -> a mapping with ``objective`` and the terms that it is made of.

    Args:
        camera, depth: sections with a ``weight``.
        name: how the total is called.
    """

    def __init__(self, camera: Any, depth: Any, name: str = "objective") -> None:
        super().__init__()
        self.camera, self.depth, self.name = camera, depth, name

    def forward(self, predictions: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        truth = encode(batch["extrinsics"], batch["intrinsics"], batch["images"].shape[-2:])
        error = (predictions["pose_enc"] - truth).abs()
        shift, turn, view = error[..., :3].mean(), error[..., 3:7].mean(), error[..., 7:].mean()
        camera = shift + turn + 0.5 * view
        depth = self._depth(predictions["depth"][..., 0], batch["depths"], batch["point_masks"])
        return {
            self.name: self.camera.weight * camera + self.depth.weight * depth,
            "loss_camera": camera,
            "loss_T": shift,
            "loss_R": turn,
            "loss_FL": view,
            "loss_reg_depth": depth,
        }

    def _depth(self, predicted: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        error = torch.where(valid, (predicted - truth).abs(), 0.0)
        return error.sum() / valid.sum().clamp(min=1)
