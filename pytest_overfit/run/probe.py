"""Probes of a batch and its loss: could this run have failed?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.run.loop import evaluating
from pytest_overfit.run.record import FrameRecord, Supervision
from pytest_overfit.run.task import TwoViewTask

TARGETS = ("depths", "extrinsics", "intrinsics", "point_masks")


def probe_supervision(task: TwoViewTask) -> Supervision:
    """Perturbs one target at a time under the untrained model's predictions and measures how each loss term answers."""
    batch = task.batch
    with evaluating(task.model):
        predictions = task.predict(batch)
        base = task.terms(predictions, batch)
        answers = {}
        for target in TARGETS:
            if isinstance(batch.get(target), Tensor):
                changed = task.terms(predictions, {**batch, target: perturbed(target, batch[target])})
                answers[target] = {
                    name: float((changed[name] - value).abs()) for name, value in base.items() if name in changed
                }
    images, poses = batch["images"][0], batch["extrinsics"][0]
    several = images.shape[0] > 1
    return Supervision(
        answers=answers,
        frames=_frames(batch),
        image_difference=float((images[1:] - images[:1]).abs().mean()) if several else None,
        pose_difference=float((poses[1:] - poses[:1]).abs().amax()) if several else None,
    )


def perturbed(target: str, value: Tensor) -> Tensor:
    """Clearly another target: depth or focal length 10 % larger, the camera 0.1 units away, half the mask."""
    if target == "point_masks":
        changed = value.clone()
        changed[..., : value.shape[-1] // 2] = False
        return changed
    if target == "extrinsics":
        changed = value.clone()
        changed[..., 3] += 0.1
        return changed
    if target == "intrinsics":
        scale = torch.ones(3, 3, dtype=value.dtype, device=value.device)
        scale[0, 0] = scale[1, 1] = 1.1
        return value * scale
    return value * 1.1


def _frames(batch: Mapping[str, Any]) -> tuple[FrameRecord, ...]:
    masks = batch["point_masks"][0]
    return tuple(FrameRecord(i, int(mask.sum()), mask.numel()) for i, mask in enumerate(masks))
