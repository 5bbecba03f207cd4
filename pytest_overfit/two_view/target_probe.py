"""What the loss of a two-view batch answers to: depth, cameras, masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.errors.asking import Questions, Refused, users_code
from pytest_overfit.run.call_task import CallTask
from pytest_overfit.run.loop import evaluating
from pytest_overfit.run.loss_call import LossCall
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.supervision_record import FrameRecord, Share, Supervision
from pytest_overfit.run.task import Terms, scalar_terms

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
        frames=_frames(batch),
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


def _frames(batch: Mapping[str, Any]) -> tuple[FrameRecord, ...]:
    masks = batch["point_masks"][0]
    return tuple(FrameRecord(i, int(mask.sum()), mask.numel()) for i, mask in enumerate(masks))
