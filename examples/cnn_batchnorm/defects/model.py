"""A residual network for images of 32 pixels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = ("none", "scratch", "dent", "stain")


class Residual(nn.Module):
    """Two convolutions at half the resolution, added to a projection of the input: (B, C, H, W) to (B, D, H/2, W/2)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(channels, width, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(inner)) + self.shortcut(x))


class DefectNet(nn.Module):
    """Images (B, 3, 32, 32) to logits (B, 4)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(Residual(width, width), Residual(width, 2 * width))
        self.head = nn.Linear(2 * width, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))
