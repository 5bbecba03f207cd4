"""The network that predicts the noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from denoise.process import STEPS

PIXELS = 8 * 8


class Denoiser(nn.Module):
    """Noised images (B, 1, 8, 8) and times (B,) to the noise in them, (B, 1, 8, 8)."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.times = nn.Embedding(STEPS, 32)
        self.net = nn.Sequential(
            nn.Linear(PIXELS + 32, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, PIXELS)
        )

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        x = torch.cat([images.flatten(1), self.times(times)], dim=1)
        return self.net(x).reshape(images.shape)
