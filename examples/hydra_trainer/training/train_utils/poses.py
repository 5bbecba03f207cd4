"""Cameras as nine numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def encode(extrinsics: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """World2cam (..., 3, 4) and pixels (..., 3, 3) to translation, quaternion (x y z w, w >= 0), fields of view."""
    height, width = size
    fov_h = 2 * torch.atan(height / 2 / intrinsics[..., 1, 1])
    fov_w = 2 * torch.atan(width / 2 / intrinsics[..., 0, 0])
    turn = quaternion(extrinsics[..., :3])
    return torch.cat([extrinsics[..., 3], turn, torch.stack([fov_h, fov_w], dim=-1)], dim=-1)


def quaternion(rotation: Tensor) -> Tensor:
    """Rotations of less than half a turn, (..., 3, 3), to unit quaternions (..., 4)."""
    w = (1 + rotation.diagonal(dim1=-2, dim2=-1).sum(-1)).clamp(min=1e-8).sqrt() / 2
    x = (rotation[..., 2, 1] - rotation[..., 1, 2]) / (4 * w)
    y = (rotation[..., 0, 2] - rotation[..., 2, 0]) / (4 * w)
    z = (rotation[..., 1, 0] - rotation[..., 0, 1]) / (4 * w)
    return torch.stack([x, y, z, w], dim=-1)
