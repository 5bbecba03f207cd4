"""A model that memorises in a second, for tests that are about everything but the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Memoriser(nn.Module):
    """The answer as free parameters, with the VGGT interface: depth, confidence and pose per frame.

    All it reads of the images is how bright they are, and its cameras answer a little: a model that reads nothing is
    a defect, and one that reads more could not memorise in a second.
    `trunk` and `camera_head` exist so that freezing and clipping have names to match.
    """

    def __init__(self, height: int = 42, width: int = 56) -> None:
        super().__init__()
        self.trunk = nn.Parameter(torch.zeros(1, 2, height, width))
        self.confidence = nn.Parameter(torch.zeros(1, 2, 1, 1))
        self.camera_head = nn.Linear(1, 18)

    def forward(self, images: Tensor) -> dict[str, Any]:
        pose = self.camera_head(1 + images.mean().reshape(1) / 1000).reshape(1, 2, 9)
        return {
            "depth": self.trunk.exp()[..., None],
            "depth_conf": 1 + self.confidence.exp().expand_as(self.trunk),
            "pose_enc": pose,
            "pose_enc_list": [pose],
        }


class NanCamera(Memoriser):
    """A camera head that gives NaN, for losses that hide it."""

    def forward(self, images: Tensor) -> dict[str, Any]:
        predictions = super().forward(images)
        pose = self.spoil(predictions["pose_enc"])
        return {**predictions, "pose_enc": pose, "pose_enc_list": [pose]}

    def __init__(self) -> None:
        super().__init__()
        self.spoil = Spoil()


class Spoil(nn.Module):
    """0/0."""

    def forward(self, value: Tensor) -> Tensor:
        return value * 0 / 0
