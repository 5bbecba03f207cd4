"""Prediction against ground truth, per frame, in normalised units, metres and degrees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.run.record import FramePrediction
from pytest_overfit.two_view.reference.pose import decode_pose

# In units of the mean distance to the scene. The first camera is the origin up to rounding; a shift that small has no
# direction.
MIN_BASELINE = 1e-3


def compare_predictions(predictions: Any, batch: Mapping[str, Any]) -> tuple[FramePrediction, ...]:
    """One ``FramePrediction`` per frame of the first sample; parts that the model does not predict stay None.

    Args:
        predictions: ``depth`` (B, S, H, W[, 1]) normalised; ``pose_enc`` or ``pose_enc_list[-1]`` (B, S, 9),
            absT_quaR_FoV.
        batch: a normalised batch; ``avg_scale`` (B,) metres per unit turns it back into metres.
    """
    if not isinstance(predictions, Mapping):
        return ()
    depth, pose = depth_of(predictions), pose_of(predictions)
    frames = batch["images"].shape[1]
    scale = float(batch["avg_scale"][0]) if "avg_scale" in batch else 1.0
    return tuple(
        FramePrediction(
            frame=frame,
            **(_depth_errors(depth[0, frame], batch, frame, scale) if depth is not None else {}),
            **(_pose_errors(pose[0, frame], batch, frame, scale) if pose is not None else {}),
        )
        for frame in range(frames)
    )


def depth_of(predictions: Mapping[str, Any]) -> Tensor | None:
    """The predicted depth as (B, S, H, W), or None where the model gives none."""
    depth = predictions.get("depth")
    if not isinstance(depth, Tensor):
        return None
    return depth.squeeze(-1) if depth.dim() == 5 else depth


def confidence_of(predictions: Any) -> dict[str, float]:
    """``confidence/mean``, ``confidence/min`` and ``confidence/max`` of the first sample's ``depth_conf``. A sync.

    Example:
        >>> confidence_of({"depth_conf": torch.tensor([[1.0, 3.0]])})
        {'confidence/mean': 2.0, 'confidence/min': 1.0, 'confidence/max': 3.0}
    """
    confidence = predictions.get("depth_conf") if isinstance(predictions, Mapping) else None
    if not isinstance(confidence, Tensor) or not confidence.numel():
        return {}
    first = confidence[0].detach().float()
    numbers = torch.stack([first.mean(), first.min(), first.max()]).tolist()
    return {f"confidence/{name}": number for name, number in zip(("mean", "min", "max"), numbers, strict=True)}


def pose_of(predictions: Mapping[str, Any]) -> Tensor | None:
    """The predicted pose encoding (B, S, 9), of several stages the last, or None where the model gives none."""
    pose = predictions.get("pose_enc")
    stages = predictions.get("pose_enc_list")
    if pose is None and isinstance(stages, (list, tuple)) and stages:
        pose = stages[-1]
    return pose if isinstance(pose, Tensor) else None


def _depth_errors(predicted: Tensor, batch: Mapping[str, Any], frame: int, scale: float) -> dict[str, float]:
    mask = batch["point_masks"][0, frame]
    truth = batch["depths"][0, frame][mask].double()
    guess = predicted.detach()[mask].double()
    if truth.numel() == 0:
        return {}
    ratio = torch.maximum(guess / truth, truth / guess.clamp(min=1e-12))
    error = (guess - truth).abs()
    return {
        "abs_rel": float((error / truth).mean()),
        "delta_1_25": float((ratio < 1.25).double().mean()),
        "mae": float(error.mean()),
        "mae_metres": float(error.mean()) * scale,
    }


def _pose_errors(encoded: Tensor, batch: Mapping[str, Any], frame: int, scale: float) -> dict[str, float | None]:
    size = tuple(batch["images"].shape[-2:])
    guess, _ = decode_pose(encoded.detach().double(), size)
    K = batch["intrinsics"][0, frame].double()
    fields = [2 * torch.atan(side / 2 / K[k, k]) for side, k in ((size[0], 1), (size[1], 0))]
    off = (encoded.detach().double()[7:].to(K.device) - torch.stack(fields)).abs().amax()
    truth = batch["extrinsics"][0, frame].double()
    relative = guess[:3, :3] @ truth[:3, :3].T
    cosine = ((relative.trace() - 1) / 2).clamp(-1, 1)
    shift, true_shift = guess[:3, 3], truth[:3, 3]
    angle = None
    if float(true_shift.norm()) > MIN_BASELINE:
        dot = torch.dot(shift, true_shift) / (shift.norm() * true_shift.norm()).clamp(min=1e-12)
        angle = float(torch.rad2deg(torch.acos(dot.clamp(-1, 1))))
    return {
        "rotation_deg": float(torch.rad2deg(torch.acos(cosine))),
        "translation_deg": angle,
        "translation_metres": float((shift - true_shift).norm()) * scale,
        "fov_deg": float(torch.rad2deg(off)),
    }
