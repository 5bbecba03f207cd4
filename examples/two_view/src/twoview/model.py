"""A net over patches. Shape legend: B samples, S = 2 frames, H W pixels, h w patches, D channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 14  # pixels
GAIN = 0.1  # of both heads: keeps what one update changes small


class PairNet(nn.Module):
    """Images (B, 2, 3, H, W) in 0..1, H and W multiples of 14, to depth, its confidence, and a camera per frame.

    A call ``model(images=images)`` returns ``depth`` (B, 2, H, W, 1), positive; ``depth_conf`` (B, 2, H, W), above 1;
    ``pose_enc`` (B, 2, 9): translation, quaternion (x y z w), vertical and horizontal field of view in radians;
    ``pose_enc_list``: just that one.
    """

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3 + 2, width, PATCH, stride=PATCH)
        self.frames = nn.Parameter(0.1 * torch.randn(2, width))
        self.mix = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 2 * width), nn.GELU())
        self.depth_head = nn.Linear(2 * width, 2 * PATCH**2)
        self.camera_head = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 9))

    def forward(self, images: Tensor) -> dict[str, Any]:
        b, s, _, height, width = images.shape
        flat = images.flatten(0, 1) - 0.5
        tokens = self.patches(torch.cat([flat, places(flat)], dim=1)).flatten(2).transpose(1, 2)
        tokens = tokens.unflatten(0, (b, s)) + self.frames[:, None]  # (B, S, h w, D)
        other = tokens.mean(dim=2, keepdim=True).flip(1).expand_as(tokens)
        mixed = self.mix(torch.cat([tokens, other], dim=-1))

        maps = GAIN * self.depth_head(mixed).flatten(0, 1).transpose(1, 2)
        maps = F.pixel_shuffle(maps.unflatten(2, (height // PATCH, width // PATCH)), PATCH).unflatten(0, (b, s))
        pose = GAIN * self.camera_head(mixed.mean(dim=2)) + pose_at_rest(images)
        return {
            "depth": maps[:, :, 0].exp()[..., None],
            "depth_conf": 1 + 3 * maps[:, :, 1].sigmoid(),
            "pose_enc": pose,
            "pose_enc_list": [pose],
        }


def places(images: Tensor) -> Tensor:
    """Row and column of every pixel in -1..1, as two more channels (B, 2, H, W)."""
    rows, columns = (torch.linspace(-1, 1, n, device=images.device) for n in images.shape[-2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return grid.expand(len(images), -1, -1, -1)


def pose_at_rest(like: Tensor) -> Tensor:
    """No translation, no rotation, fields of view of about 57 degrees."""
    return like.new_tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
