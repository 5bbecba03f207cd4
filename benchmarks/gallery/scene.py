"""A rendered pair of views: a textured wall before a slanted ground, and sky."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

SIZE = 24
FOCAL = 26.0


def scene_batch(normalised: bool = True) -> dict[str, Any]:
    """One sample of two views that agree under their cameras.

    ``images`` (1, 2, 3, H, W) in 0..1, ``depths`` (1, 2, H, W) along the z axis with 0 in the sky, ``point_masks``
    (1, 2, H, W) bool, ``extrinsics`` (1, 2, 3, 4) world2cam in OpenCV axes, ``intrinsics`` (1, 2, 3, 3) in pixels.
    Lengths are metres, or multiples of the mean distance to the first camera where ``normalised``.
    """
    intrinsics = torch.tensor([[FOCAL, 0.0, SIZE / 2], [0.0, FOCAL, SIZE / 2], [0.0, 0.0, 1.0]])
    yaw = 0.12
    turn = torch.tensor([[math.cos(yaw), 0.0, math.sin(yaw)], [0.0, 1.0, 0.0], [-math.sin(yaw), 0.0, math.cos(yaw)]])
    first = torch.cat([torch.eye(3), torch.zeros(3, 1)], dim=1)
    second = torch.cat([turn, torch.tensor([[-1.1], [0.15], [0.2]])], dim=1)
    views = [render(camera, intrinsics) for camera in (first, second)]
    images, depths = torch.stack([v[0] for v in views]), torch.stack([v[1] for v in views])
    masks, extrinsics = depths > 0, torch.stack([first, second])
    if normalised:
        points = to_points(depths[0], intrinsics)[masks[0]]
        unit = points.norm(dim=1).mean()
        depths = depths / unit
        extrinsics = torch.cat([extrinsics[..., :3], extrinsics[..., 3:] / unit], dim=-1)
    batch = {
        "images": images, "depths": depths, "point_masks": masks, "extrinsics": extrinsics,
        "intrinsics": torch.stack([intrinsics, intrinsics]),
    }  # fmt: skip
    return {name: value[None].contiguous() for name, value in batch.items()}


def to_points(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Points (H, W, 3) in the axes of the camera, of depths (H, W)."""
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    x, y = (columns - intrinsics[0, 2]) / intrinsics[0, 0], (rows - intrinsics[1, 2]) / intrinsics[1, 1]
    return torch.stack([x, y, torch.ones_like(x)], dim=-1) * depth[..., None]


def render(extrinsics: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """An image (3, H, W) and depths (H, W) of the scene, by intersecting every ray with both planes."""
    rotation, shift = extrinsics[:, :3], extrinsics[:, 3]
    rays = to_points(torch.ones(SIZE, SIZE), intrinsics) @ rotation  # world axes
    centre = -shift @ rotation
    wall = (6.0 - centre[2]) / rays[..., 2]
    ground = (1.4 - centre[1]) / rays[..., 1].clamp(min=1e-6)
    wall_points = centre + rays * wall[..., None]
    on_wall = (wall_points[..., 1] > -1.4) & (wall_points[..., 0].abs() < 3.2)
    depth = torch.minimum(torch.where(on_wall, wall, torch.inf), torch.where(ground > 0, ground, torch.inf))
    seen = depth < 12
    points = centre + rays * torch.where(seen, depth, 0.0)[..., None]
    phase = torch.stack([1.7 * points[..., 0], 2.1 * points[..., 1] + points[..., 0], 1.3 * points[..., 2]])
    image = torch.where(seen, 0.5 + 0.2 * phase.sin() + 0.15 * (2.3 * phase.flip(0)).cos(), 0.9)
    return image.clamp(0, 1), torch.where(seen, depth, 0.0)
