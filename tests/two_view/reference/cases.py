"""Batches and predictions that the tests of the loss share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.two_view.reference.pose import encode_pose
from tests.shared_data import golden

TERMS = ("loss_camera", "loss_T", "loss_R", "loss_FL", "loss_conf_depth", "loss_reg_depth", "loss_grad_depth")


def golden_case(name: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Predictions that require gradients, the normalised batch, and the original's numbers."""
    reference = golden(name)
    arrays = {key: torch.from_numpy(value) for key, value in reference.arrays.items() if value.ndim}
    predictions = {
        "pose_enc_list": [stage.clone().requires_grad_() for stage in arrays["pred_pose_enc_list"]],
        "depth": arrays["pred_depth"].clone().requires_grad_(),
        "depth_conf": arrays["pred_depth_conf"].clone().requires_grad_(),
    }
    batch = {key: arrays[key] for key in ("images", "intrinsics", "point_masks")}
    batch |= {"extrinsics": arrays["norm_extrinsics"], "depths": arrays["norm_depths"]}
    return predictions, batch, reference.numbers


def make_batch(
    height: int = 56, width: int = 70, *, valid: float = 0.8, samples: int = 1, seed: int = 0
) -> dict[str, Tensor]:
    """A random normalised batch of two views."""
    draw = torch.Generator().manual_seed(seed)
    masks = torch.rand(samples, 2, height, width, generator=draw) < valid
    extrinsics = torch.eye(4)[:3].repeat(samples, 2, 1, 1)
    extrinsics[..., 3] = torch.rand(samples, 2, 3, generator=draw)
    intrinsics = torch.diag(torch.tensor([60.0, 60.0, 1.0])).repeat(samples, 2, 1, 1)
    depths = (0.5 + torch.rand(samples, 2, height, width, generator=draw)) * masks
    images = torch.rand(samples, 2, 3, height, width, generator=draw)
    cameras = {"extrinsics": extrinsics, "intrinsics": intrinsics}
    return {"images": images, "depths": depths, "point_masks": masks, **cameras}


def target_pose(batch: Mapping[str, Tensor]) -> Tensor:
    height, width = batch["images"].shape[-2:]
    return encode_pose(batch["extrinsics"], batch["intrinsics"], (height, width))


def perfect(batch: Mapping[str, Tensor], *, stages: int = 4, conf: float = 2.0) -> dict[str, Any]:
    """Predictions that equal the target."""
    return {
        "pose_enc_list": [target_pose(batch).requires_grad_() for _ in range(stages)],
        "depth": batch["depths"][..., None].clone().requires_grad_(),
        "depth_conf": torch.full_like(batch["depths"], conf).requires_grad_(),
    }


def noisy(batch: Mapping[str, Tensor], *, noise: float = 0.1, seed: int = 1) -> dict[str, Any]:
    """Predictions off by Gaussian noise."""
    draw = torch.Generator().manual_seed(seed)

    def off(tensor: Tensor) -> Tensor:
        return (tensor.detach() + noise * torch.randn(tensor.shape, generator=draw)).requires_grad_()

    exact = perfect(batch)
    conf = 1 + torch.randn(batch["depths"].shape, generator=draw).exp()
    poses = [off(stage) for stage in exact["pose_enc_list"]]
    return {"pose_enc_list": poses, "depth": off(exact["depth"]), "depth_conf": conf.requires_grad_()}


def leaves(predictions: Mapping[str, Any]) -> list[Tensor]:
    return [*predictions["pose_enc_list"], predictions["depth"], predictions["depth_conf"]]
