"""A normalised two-view batch of a plane, without any file."""

from __future__ import annotations

from typing import Any

import torch


def two_view_batch(height: int = 42, width: int = 56) -> dict[str, Any]:
    """Two cameras above a slanted plane; shapes, units and axes as `pytest_overfit.two_view.data` gives them."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.8, 1.2, height)[:, None].expand(height, width)
    depths = torch.stack([ramp, ramp.flip(0)])[None].contiguous()
    extrinsics = torch.eye(4)[:3].repeat(1, 2, 1, 1)
    extrinsics[0, 1, :, 3] = torch.tensor([0.3, -0.1, 0.2])
    focal = 50.0
    intrinsics = torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return {
        "images": torch.rand(1, 2, 3, height, width, generator=generator),
        "depths": depths,
        "extrinsics": extrinsics,
        "intrinsics": intrinsics.repeat(1, 2, 1, 1),
        "cam_points": torch.zeros(1, 2, height, width, 3),
        "world_points": torch.ones(1, 2, height, width, 3),
        "point_masks": torch.ones(1, 2, height, width, dtype=torch.bool),
        "avg_scale": torch.tensor([30.0]),
    }
