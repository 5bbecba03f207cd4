# mypy: disable-error-code="no-any-return"
"""Images in, an image-sized field out: masks, depth, heat maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.case import Setup, cases, fixed, smooth_images
from benchmarks.zoo.vision import adam

Batch = dict[str, Any]


class UNet(nn.Module):
    """Two levels with skip connections, full resolution out."""

    def __init__(self, out: int, width: int = 12) -> None:
        super().__init__()
        self.enter, self.down = self._pair(3, width), self._pair(width, 2 * width)
        self.deep = self._pair(2 * width, 4 * width)
        self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.merge1 = self._pair(4 * width, 2 * width)
        self.up2 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.merge2 = self._pair(2 * width, width)
        self.head = nn.Conv2d(width, out, 1)

    @staticmethod
    def _pair(before: int, after: int) -> nn.Sequential:
        first = [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*first, nn.Conv2d(after, after, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        full = self.enter(x)
        half = self.down(F.max_pool2d(full, 2))
        deep = self.deep(F.max_pool2d(half, 2))
        half = self.merge1(torch.cat([self.up1(deep), half], dim=1))
        return self.head(self.merge2(torch.cat([self.up2(half), full], dim=1)))


def scenes(count: int = 2, size: int = 16) -> tuple[Tensor, Tensor]:
    """Images and smooth fields of the same size (count, size, size) to predict."""
    source = fixed()
    return smooth_images(count, 3, size, source), smooth_images(count, 1, size, source)[:, 0]


def unet_segmentation() -> Setup:
    """Three classes per pixel; unlabelled pixels carry 255."""
    images, field = scenes()
    mask = (field > -0.5).long() + (field > 0.5).long()
    mask[:, :2] = 255

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["image"]), batch["mask"], ignore_index=255)

    return Setup(UNet(3), {"image": images, "mask": mask}, loss, optimizer=adam(5e-3))


def unet_dice() -> Setup:
    """Soft Dice plus cross entropy of a boolean mask."""
    images, field = scenes()

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits, mask = model(batch["image"])[:, 0], batch["mask"].float()
        found = logits.sigmoid()
        overlap = (2 * (found * mask).sum((1, 2)) + 1) / (found.sum((1, 2)) + mask.sum((1, 2)) + 1)
        dice = 1 - overlap.mean()
        entropy = F.binary_cross_entropy_with_logits(logits, mask)
        return dice + entropy, {"dice": dice, "cross_entropy": entropy}

    return Setup(UNet(1), {"image": images, "mask": field > 0}, loss, optimizer=adam(5e-3))


def depth_masked() -> Setup:
    """Log depth by L1 where there is depth; missing pixels are zero and masked."""
    images, field = scenes()
    depth = (0.5 * field).exp() * 2
    valid = torch.rand(depth.shape, generator=fixed(1)) > 0.2
    batch = {"image": images, "depth": depth * valid, "valid": valid, "paths": ["a/0001.png", "a/0002.png"]}

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        valid = batch["valid"]
        log_depth = model(batch["image"])[:, 0]
        return F.mse_loss(log_depth[valid], batch["depth"][valid].log())

    return Setup(UNet(1), batch, loss, optimizer=adam(3e-3))


def depth_confidence() -> Setup:
    """Confidence-weighted depth, |d| c - 0.2 log c with c = 1 + exp(.), next to the plain error.

    The objective has no lower bound at zero, so a negative limit is stated.
    """
    images, field = scenes()
    batch = {"image": images, "depth": (0.5 * field).exp() * 2}

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        log_depth, raw = model(batch["image"]).unbind(1)
        confidence = 1 + raw.exp()
        error = (log_depth.exp() - batch["depth"]).abs()
        return {
            "objective": (error * confidence - 0.2 * confidence.log()).mean(),
            "depth": error.mean(),
            "confidence": confidence.detach().mean(),
        }

    return Setup(UNet(2), batch, loss, optimizer=adam(5e-3), settings={"objective": -0.1})


def keypoint_heatmaps() -> Setup:
    """Soft-argmax of heat maps, in units of half the image."""
    source = fixed()
    batch = {"image": smooth_images(4, 3, 16, source), "points": torch.rand(4, 3, 2, generator=source) * 1.2 - 0.6}
    axis = torch.linspace(-1, 1, 16)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        heat = model(batch["image"]).flatten(2).softmax(-1).unflatten(-1, (16, 16))
        points = torch.stack([(heat.sum(2) * axis).sum(-1), (heat.sum(3) * axis).sum(-1)], dim=-1)
        return (points - batch["points"]).abs().mean()

    return Setup(UNet(3), batch, loss, optimizer=adam(2e-3))


CASES = cases(
    "dense_vision", unet_segmentation, unet_dice, depth_masked, depth_confidence, keypoint_heatmaps,
)  # fmt: skip
