"""A net over patches. Shape legend: B samples, S frames, H W pixels, h w patches, D channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 14  # pixels
GAIN = 0.1  # of both heads


class PairNet(nn.Module):
    """Images (B, S, 3, H, W) in 0..1 to depth, its confidence, and a camera per frame.

    A call ``model(images=images)`` returns ``depth`` (B, S, H, W, 1), ``depth_conf`` (B, S, H, W) and ``pose_enc``
    (B, S, 9): translation, quaternion (x y z w), vertical and horizontal field of view in radians, which pass a ReLU.

    Args:
        trunk: a section with ``width`` (channels), ``norm`` (layer or batch), and the ``momentum`` of the latter.
        fov: what the fields of view start at, in radians.
        most_frames: of one sample.
    """

    def __init__(self, trunk: Any, fov: float = 1.0, most_frames: int = 8) -> None:
        super().__init__()
        width = trunk.width
        self.patches = nn.Conv2d(3 + 2, width, PATCH, stride=PATCH)
        self.frames = nn.Parameter(0.1 * torch.randn(most_frames, width))
        momentum = trunk.get("momentum", 0.1)
        self.norm = nn.BatchNorm1d(2 * width, momentum=momentum) if trunk.norm == "batch" else nn.LayerNorm(2 * width)
        self.mix = nn.Linear(2 * width, 2 * width)
        self.depth_head = nn.Linear(2 * width, 2 * PATCH**2)
        self.camera_head = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 9))
        self.register_buffer("rest", torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, fov, fov]))

    def forward(self, images: Tensor) -> dict[str, Any]:
        b, s, _, height, width = images.shape
        flat = images.flatten(0, 1) - 0.5
        tokens = self.patches(torch.cat([flat, places(flat)], dim=1)).flatten(2).transpose(1, 2)
        tokens = tokens.unflatten(0, (b, s)) + self.frames[:s, None]  # (B, S, h w, D)
        other = tokens.mean(dim=2, keepdim=True).roll(1, dims=1).expand_as(tokens)
        mixed = torch.cat([tokens, other], dim=-1)
        mixed = F.gelu(self.mix(self.norm(mixed.flatten(0, 2)).view_as(mixed)))
        with torch.autocast(images.device.type, enabled=False):  # both heads in float32
            return self.heads(mixed.float(), height, width)

    def heads(self, mixed: Tensor, height: int, width: int) -> dict[str, Any]:
        b, s = mixed.shape[:2]
        maps = GAIN * self.depth_head(mixed).flatten(0, 1).transpose(1, 2)
        maps = F.pixel_shuffle(maps.unflatten(2, (height // PATCH, width // PATCH)), PATCH).unflatten(0, (b, s))
        pose = GAIN * self.camera_head(mixed.mean(dim=2)) + self.rest
        pose = torch.cat([pose[..., :7], pose[..., 7:].relu()], dim=-1)
        return {
            "depth": maps[:, :, 0].exp()[..., None],
            "depth_conf": 1 + maps[:, :, 1].exp(),
            "pose_enc": pose,
        }


def places(images: Tensor) -> Tensor:
    """Row and column of every pixel in -1..1, as two more channels (B, 2, H, W)."""
    rows, columns = (torch.linspace(-1, 1, n, device=images.device) for n in images.shape[-2:])
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(images), -1, -1, -1)
