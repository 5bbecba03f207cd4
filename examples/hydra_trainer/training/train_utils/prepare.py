"""Between the loader and the model: a scene in units of its mean distance, seen from its first camera."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def normalise(batch: dict[str, Any]) -> dict[str, Any]:
    """Changes extrinsics, points and depths in place."""
    first = _square(batch["extrinsics"][:, :1])
    poses = _square(batch["extrinsics"]) @ torch.linalg.inv(first)
    points = batch["world_points"] @ first[:, :, None, :3, :3].mT + first[:, :, None, None, :3, 3]
    distance = torch.where(batch["point_masks"], points.norm(dim=-1), 0.0)
    scale = distance.flatten(1).sum(1) / (batch["point_masks"].flatten(1).sum(1) + 1e-3)
    poses[..., :3, 3] /= scale[:, None, None]
    batch["extrinsics"] = poses[..., :3, :]
    batch["world_points"] = points / scale[:, None, None, None, None]
    batch["cam_points"] = batch["cam_points"] / scale[:, None, None, None, None]
    batch["depths"] = batch["depths"] / scale[:, None, None, None]
    return batch


def _square(extrinsics: Tensor) -> Tensor:
    last = extrinsics.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*extrinsics.shape[:-2], 1, 4)
    return torch.cat([extrinsics, last], dim=-2)
