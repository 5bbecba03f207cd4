"""What a run is told of two views: the probe of its targets, predictions against ground truth, pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pytest_overfit.errors.asking import Questions, Refused, users_code
from pytest_overfit.run.call_task import CallTask
from pytest_overfit.run.loop import evaluating
from pytest_overfit.run.loss_call import LossCall
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.record import FramePrediction
from pytest_overfit.run.subject import Application
from pytest_overfit.run.supervision_record import FrameRecord, Share, Supervision
from pytest_overfit.run.task import Terms, scalar_terms
from pytest_overfit.two_view.pair.pair_files import Camera, FramePicture
from pytest_overfit.two_view.reference.pose import decode_pose


@dataclass(frozen=True)
class FramePictures:
    """The frames of one sample, as an observer is given them. Drawing imports the drawing library."""

    frames: tuple[FramePicture, ...]

    def panels(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Name -> (H, W, 3) uint8 RGB."""
        from pytest_overfit.two_view.pictures.frames import picture_panels

        return picture_panels(self.frames)

    def write(self, folder: Path) -> tuple[str, ...]:
        """Writes every panel as a PNG file, the cameras as SVG; their names.

        Raises:
            OSError: the folder cannot be written.
        """
        from pytest_overfit.two_view.pictures.frames import write_pictures

        return write_pictures(folder, self.frames)


def take_pictures(predictions: Any, batch: Mapping[str, Any]) -> FramePictures:
    """The frames of the first sample, with what the model says of them."""
    given = predictions if isinstance(predictions, Mapping) else {}
    depth, confidence, pose = depth_of(given), given.get("depth_conf"), pose_of(given)
    size = tuple(batch["images"].shape[-2:])
    frames = (
        FramePicture(
            frame=frame,
            image=(image.clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy(),
            truth=batch["depths"][0, frame].float().cpu().numpy(),
            valid=batch["point_masks"][0, frame].cpu().numpy(),
            predicted=None if depth is None else depth[0, frame].detach().float().cpu().numpy(),
            confidence=None if confidence is None else confidence[0, frame].detach().float().cpu().numpy(),
            camera=_camera(batch["extrinsics"][0, frame], batch["intrinsics"][0, frame]),
            predicted_camera=None if pose is None else _camera(*decode_pose(pose[0, frame].detach().double(), size)),
        )
        for frame, image in enumerate(batch["images"][0])
    )
    return FramePictures(tuple(frames))


def _camera(extrinsics: Tensor, intrinsics: Tensor) -> Camera | None:
    """None where a number is not finite, as in a camera that was never learnt."""
    world2cam = np.eye(4)
    world2cam[:3] = extrinsics.detach().double().cpu().numpy()
    k = intrinsics.detach().double().cpu().numpy()
    if not (np.isfinite(world2cam).all() and np.isfinite(k).all()):
        return None
    cam2world = np.eye(4)
    cam2world[:3, :3] = world2cam[:3, :3].T
    cam2world[:3, 3] = -world2cam[:3, :3].T @ world2cam[:3, 3]
    return Camera(k, cam2world)


TARGETS = ("depths", "extrinsics", "intrinsics", "point_masks")


def probe_targets(call: LossCall, questions: Questions) -> Supervision:
    """Perturbs one target at a time under the untrained model's predictions and measures how each loss term answers.

    Where a step of the user's makes the verdict, the terms that it reports are asked.

    Raises:
        Exception: whatever the user's code raises of the batch as it is: the run would raise it too.
    """
    task, question = call.task, "what the loss answers to"
    batch = task.batch
    with evaluating(task.model):
        predictions = task.predict(batch)
        base = _numbers(task, predictions, batch)
        answers = questions.ask(
            question, lambda: _answers(batch, base, lambda other: _numbers(task, predictions, other)), otherwise={}
        )
        shares = questions.ask(
            "how much of the depth the loss reads", lambda: _depth_share(task, predictions), otherwise={}
        )
    if call.step is not None:
        question = "what the step answers to"
        answers = questions.ask(question, lambda: _answers(batch, call.terms(batch), call.terms), otherwise={})
    images, poses = batch["images"][0], batch["extrinsics"][0]
    several = images.shape[0] > 1
    return Supervision(
        answers=answers,
        frames=tuple(FrameRecord(i, int(mask.sum()), mask.numel()) for i, mask in enumerate(batch["point_masks"][0])),
        shares=shares,
        image_difference=float((images[1:] - images[:1]).abs().mean()) if several else None,
        pose_difference=float((poses[1:] - poses[:1]).abs().amax()) if several else None,
        finite=all(map(math.isfinite, base.values())),
    )


def _numbers(task: CallTask, predictions: Any, batch: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in _terms(task, predictions, batch).items()}


def _terms(task: CallTask, predictions: Any, batch: Mapping[str, Any]) -> Terms:
    assert task.loss is not None
    return scalar_terms(task.loss(predictions, batch))


def _answers(
    batch: Mapping[str, Any], base: Mapping[str, float], terms: Callable[[Mapping[str, Any]], Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    answers = {}
    for target in TARGETS:
        if not isinstance(batch.get(target), Tensor):
            continue
        try:
            with users_code():
                changed = terms({**batch, target: perturbed(target, batch[target])})
        except Refused:  # what refuses another value has read it
            answers[target] = dict.fromkeys(base, math.inf)
            continue
        answers[target] = {name: abs(changed[name] - value) for name, value in base.items() if name in changed}
    return answers


def _depth_share(task: CallTask, predictions: Any) -> dict[str, Share]:
    """How many of the valid depths the term of depth reads: where it has a slope along them. Costs no forward pass."""
    depths, masks = task.batch.get("depths"), task.batch.get("point_masks")
    if not isinstance(depths, Tensor) or not isinstance(masks, Tensor) or depths.shape != masks.shape:
        return {}
    leaf = depths.detach().clone().requires_grad_()
    try:
        with users_code(), torch.enable_grad():
            terms = _terms(task, predictions, {**task.batch, "depths": leaf})
            term = terms[resolve_term("depth", terms) or "objective"]  # an error of gradients beside it reads them all
            slope = torch.autograd.grad(term, leaf, allow_unused=True)[0] if term.requires_grad else None
    except Refused:  # a loss that writes into its targets
        return {}
    valid = masks.bool()
    if slope is None or not bool(valid.any()):
        return {}
    return {"depths": Share(int(((slope != 0) & valid).sum()), int(valid.sum()))}


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


TWO_VIEW = Application(probe=probe_targets, compare=compare_predictions, numbers=confidence_of, pictures=take_pictures)
