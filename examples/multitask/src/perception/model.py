"""One trunk, two heads."""

from __future__ import annotations

from torch import Tensor, nn


class PerceptionNet(nn.Module):
    """Images (B, 3, H, W) to free-space logits (B, H, W) and a speed in m/s, (B,). H and W are multiples of 4."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.GELU(),
        )
        self.space_head = nn.Sequential(nn.Conv2d(2 * width, 64, 3, padding=1), nn.GELU(), nn.Conv2d(64, 16, 1))
        self.to_pixels = nn.PixelShuffle(4)
        self.speed_head = nn.Linear(2 * width, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(images)
        return self.to_pixels(self.space_head(features)).squeeze(1), self.speed_head(features.mean((2, 3))).squeeze(1)
