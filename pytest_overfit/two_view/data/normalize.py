"""From a loader's batch to the model's: doubled where asked for, and in units of the mean distance of its points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.errors import OverfitError

MIN_SCALE, MAX_SCALE = 1e-6, 1e6
EPSILON = 1e-3  # in the number of points


def normalize_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch in axes of its first camera and in units of its mean distance, as a new dict.

    Args:
        batch: `extrinsics` (B, S, 3, 4) world2cam, OpenCV axes, rotations orthonormal; `world_points` (B, S, H, W, 3),
            `depths` (B, S, H, W) and, where there are any, `cam_points` (B, S, H, W, 3), all in one unit (metres);
            `point_masks` (B, S, H, W) bool. Every other key is handed on as it is. Nothing is changed in place.

    Returns:
        The same keys and dtypes, and `avg_scale` (B,) float32, metres per unit: a = sum |X'| / (count + 1e-3) over the
        valid points of all frames of a sample, within [1e-6, 1e6], with E' = E inv(E_0) and X' = R_0 X + t_0.
        Translations of E', X', `cam_points` and `depths` are divided by a; the first extrinsic becomes [I|0].
        Worked out in float64 (float32 on Apple's mps, which has none).

        The original then replaces NaN and Inf by 0. That would hide a defect, so here they stay visible: a non-finite
        valid point makes the whole sample NaN.

    Raises:
        OverfitError: a key is missing.

    Source: the scene normalisation of VGGT (Wang et al., CVPR 2025, section 3.4) and its public training code.
    """
    missing = [k for k in ("extrinsics", "world_points", "depths", "point_masks") if k not in batch]
    if missing:
        raise OverfitError(f"no key {', '.join(missing)} among {sorted(batch)}", where="batch")
    extrinsics, world = batch["extrinsics"], batch["world_points"]
    mask = batch["point_masks"].bool()
    work = torch.float32 if world.device.type == "mps" else torch.float64

    first = extrinsics[:, 0].to(work)
    relative = _compose(extrinsics.to(work), _invert(first)[:, None])
    points = torch.einsum("bij,bshwj->bshwi", first[:, :, :3], world.to(work)) + first[:, None, None, None, :, 3]
    distance = torch.linalg.vector_norm(points, dim=-1)
    total = torch.where(mask, distance, 0.0).flatten(1).sum(-1)
    scale = (total / (mask.flatten(1).sum(-1) + EPSILON)).clamp(MIN_SCALE, MAX_SCALE)

    relative[..., 3] /= scale[:, None, None]
    normalized = dict(batch)
    normalized["extrinsics"] = relative.to(extrinsics.dtype)
    normalized["world_points"] = (points / _like(scale, points)).to(world.dtype)
    for key in ("depths", "cam_points"):
        if key in batch:
            normalized[key] = (batch[key].to(work) / _like(scale, batch[key])).to(batch[key].dtype)
    normalized["avg_scale"] = scale.float()
    return normalized


def _invert(extrinsics: Tensor) -> Tensor:
    """Inverse of rigid (..., 3, 4): [R^T | -R^T t]."""
    transposed = extrinsics[..., :3].transpose(-1, -2)
    return torch.cat([transposed, -transposed @ extrinsics[..., 3:]], dim=-1)


def _compose(second: Tensor, first: Tensor) -> Tensor:
    """`second` after `first`, both (..., 3, 4)."""
    rotation = second[..., :3] @ first[..., :3]
    return torch.cat([rotation, second[..., :3] @ first[..., 3:] + second[..., 3:]], dim=-1)


def _like(scale: Tensor, tensor: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (tensor.dim() - 1))


VIEWS = ("images", "depths", "extrinsics", "intrinsics", "cam_points", "world_points", "point_masks", "ids")


def prepare_batch(batch: Mapping[str, Any], *, repeat: bool = False) -> dict[str, Any]:
    """The batch as the model gets it: doubled where ``repeat_batch`` asks for it, then normalised.

    Raises:
        OverfitError: a key that the normalisation needs is missing.
    """
    return normalize_batch(repeat_batch(batch) if repeat else batch)


def repeat_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Every sample twice: as it is, and with its frames (axis 1) in reverse order. Names are repeated along.

    Example:
        >>> repeat_batch({"ids": torch.tensor([[0, 1]]), "seq_name": ["a"]})
        {'ids': tensor([[0, 1],
                [1, 0]]), 'seq_name': ['a', 'a']}
    """
    doubled = dict(batch)
    for key, value in batch.items():
        if key in VIEWS and isinstance(value, Tensor):
            doubled[key] = torch.cat([value, value.flip(1)])
        elif isinstance(value, list):
            doubled[key] = value * 2
    return doubled
