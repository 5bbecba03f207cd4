"""What a model predicts for a two-view batch against the batch, and its cameras in all encodings asked of the loss."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pytest_overfit.run.loop import evaluating
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.task import scalar_terms
from pytest_overfit.two_view.application import pose_of
from pytest_overfit.two_view.diagnose.predicted_depth import FAR, EncodingCompared
from pytest_overfit.two_view.diagnose.view_lookup import ENOUGH, Array, Flags, has_shape, is_two_view, to_numpy
from pytest_overfit.two_view.diagnose.views import DepthPredicted, ViewsPredicted
from pytest_overfit.two_view.reference.pose import encode_pose

TURNS: Mapping[str, tuple[int, ...]] = {
    "mirrored": (3,), "turned upside down": (2,), "turned by half a turn": (2, 3), "with its frames in reverse": (1,),
}  # fmt: skip


def measure_predictions(predicted: Mapping[str, Tensor], batch: Any) -> ViewsPredicted | None:
    """Predicted depth and cameras against the batch's; None where there are none, or no two-view batch.

    Args:
        predicted: by name, of which the last dotted part counts: `depth` (B, S, H, W) or (B, S, H, W,
            1), `pose_enc` (B, S, 9) with the translation first.
        batch: as for `measure_views`.
    """
    if not is_two_view(batch):
        return None
    shape = tuple(batch["depths"].shape)
    truth = to_numpy(batch["depths"]).reshape(shape[0], -1)
    counts = np.isfinite(truth) & (truth > 0)
    if has_shape(batch.get("point_masks"), shape):
        counts &= batch["point_masks"].detach().cpu().bool().numpy().reshape(shape[0], -1)
    depths = _maps(predicted, ("depth", "depths"), shape)
    if counts.sum() < ENOUGH or not depths:
        return None
    measured = []
    for name, depth in depths.items():
        way, error = _turned(depth, truth, counts, shape)
        measured.append(replace(_depth(name, depth, truth, counts), turned=way, turned_error=error))
    return ViewsPredicted(tuple(measured), *_cameras(predicted, batch))


def _turned(depth: Array, truth: Array, counts: Flags, shape: Sequence[int]) -> tuple[str, float]:
    """The way of turning a prediction over that fits the truth best, and its error there."""
    p, g = depth.reshape(shape), truth[counts]
    errors = {
        name: float(np.median(np.abs(np.flip(p, axes).reshape(truth.shape)[counts] - g) / g))
        for name, axes in TURNS.items()
        if all(shape[axis] > 1 for axis in axes)
    }
    return min(errors.items(), key=lambda each: each[1], default=("", np.inf))


def _maps(predicted: Mapping[str, Tensor], names: Sequence[str], shape: Sequence[int]) -> dict[str, Array]:
    """(B, S H W) each, by full name; those that are not finite are left to others."""
    found = {}
    for name, tensor in predicted.items():
        if name.rpartition(".")[2] in names and tuple(tensor.shape) in (tuple(shape), (*shape, 1)):
            values = to_numpy(tensor).reshape(shape[0], -1)
            if np.isfinite(values).all():
                found[name] = values
    return found


def _depth(name: str, depth: Array, truth: Array, counts: Flags) -> DepthPredicted:
    factors, aligned = [], []
    for values, wanted, use in zip(depth, truth, counts, strict=True):
        if use.any():
            factor = float(np.median(values[use] / wanted[use]))
            factors.append(factor)
            aligned.append(np.abs(values[use] / (factor or 1.0) - wanted[use]) / wanted[use])
    p, g = depth[counts], truth[counts]
    logs = np.log(np.maximum(p, 1e-12)), np.log(g)
    varied = min(float(log.std()) for log in logs) > 1e-6
    return DepthPredicted(
        name,
        error=float(np.median(np.abs(p - g) / g)),
        factor=float(np.median(factors)),
        aligned=float(np.median(np.concatenate(aligned))),
        spread=float(np.median(np.abs(np.median(g) - g) / g)),
        correlation=float(np.corrcoef(*logs)[0, 1]) if varied else 0.0,
    )


def _cameras(predicted: Mapping[str, Tensor], batch: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Length and error of the last predicted translations, relative to the batch's; None where they say nothing."""
    wanted = to_numpy(batch["extrinsics"])[..., :3, 3]
    length = float(np.linalg.norm(wanted))
    for name in reversed(list(predicted)):
        if name.rpartition(".")[2] == "pose_enc" and tuple(predicted[name].shape) == (*wanted.shape[:2], 9):
            said = to_numpy(predicted[name])[..., :3]
            if length > 1e-9 and np.isfinite(said).all():
                return float(np.linalg.norm(said)) / length, float(np.linalg.norm(said - wanted)) / length
    return None, None


Part = Mapping[str, Callable[[Tensor, Tensor], Tensor]]  # what it says: (part, rotation) -> part; the likelier first
TRANSLATION: Part = {
    "": lambda t, R: t,
    "the translation is the camera's position": lambda t, R: -(R.mT @ t[..., None])[..., 0],
    "the translation is negated": lambda t, R: -t,
}
ORDER: Part = {"": lambda q, R: q, "the quaternion has its scalar first": lambda q, R: q.roll(1, -1)}
INVERSE: Part = {
    "": lambda q, R: q,
    "the rotation is inverted": lambda q, R: q * q.new_tensor([-1.0, -1.0, -1.0, 1.0]),
    "the quaternion is negated": lambda q, R: -q,
}
FIELD: Part = {
    "": lambda f, R: f,
    "the field of view is halved": lambda f, R: f / 2,
    "the field of view is in degrees": lambda f, R: f * (180 / math.pi),
    "the tangent of half the field of view stands for it": lambda f, R: (f / 2).tan(),
}
SIDES: Part = {"": lambda f, R: f, "the field of view of the width comes first": lambda f, R: f.flip(-1)}
FRAMES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "": lambda e: e, "the frames come in reverse": lambda e: e.flip(1),
}  # fmt: skip
BLOCKS: Mapping[str, tuple[int, int, int]] = {
    "": (0, 1, 2), "the quaternion comes before the translation": (1, 0, 2),
    "the field of view comes first": (2, 0, 1),
}  # fmt: skip


def encoding_compared(task: Any) -> EncodingCompared | None:
    """The term of the camera under the true cameras, and under every other encoding of them; None without such a term.

    The right encoding costs one call of the loss; the others are asked only where it is not free.
    """
    batch, loss = task.batch, task.loss
    if loss is None or task.predictor is None or not {"extrinsics", "intrinsics", "images"}.issubset(batch):
        return None
    with evaluating(task.model):
        predictions = task.predict(batch)
        pose = pose_of(predictions) if isinstance(predictions, Mapping) else None
        if pose is None or pose.shape[-1] != 9:
            return None
        size = (int(batch["images"].shape[-2]), int(batch["images"].shape[-1]))
        true = encode_pose(batch["extrinsics"][..., :3, :].double(), batch["intrinsics"].double(), size)
        term = resolve_term("camera", scalar_terms(loss(predictions, batch)))
        if term is None or true.shape != pose.shape:
            return None

        def cost(encoded: Tensor) -> float:
            return float(scalar_terms(loss(_with_pose(predictions, encoded.to(pose)), batch))[term])

        right, spread = cost(true), (_spread(true), _spread(pose.double()))
        if not right > FAR:
            return EncodingCompared(term, right, right, (), *spread)
        rotation = batch["extrinsics"][..., :3, :3].double()
        costs = {changes: cost(encoded) for changes, encoded in _encodings(true, rotation)}
    best = min(costs, key=lambda changes: (round(costs[changes], 6), len(changes)))
    return EncodingCompared(term, right, costs[best], best, *spread)


def _spread(encoded: Tensor) -> float:
    """The largest difference of a frame's encoding from that of the first frame."""
    return float((encoded - encoded[:, :1]).abs().max())


def _with_pose(predictions: Mapping[str, Any], encoded: Tensor) -> dict[str, Any]:
    stages = predictions.get("pose_enc_list")
    listed = {"pose_enc_list": [encoded] * len(stages)} if isinstance(stages, (list, tuple)) else {}
    return {**predictions, **({"pose_enc": encoded} if "pose_enc" in predictions else {}), **listed}


def _encodings(true: Tensor, rotation: Tensor) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """With at most two changes: whoever makes one rarely makes three."""
    t, q, f = true[..., :3], true[..., 3:7], true[..., 7:]
    for names in itertools.product(TRANSLATION, INVERSE, ORDER, FIELD, SIDES, BLOCKS, FRAMES):
        if 1 <= sum(map(bool, names)) <= 2:
            parts = (
                TRANSLATION[names[0]](t, rotation), ORDER[names[2]](INVERSE[names[1]](q, rotation), rotation),
                SIDES[names[4]](FIELD[names[3]](f, rotation), rotation),
            )  # fmt: skip
            yield tuple(filter(None, names)), FRAMES[names[6]](torch.cat([parts[k] for k in BLOCKS[names[5]]], -1))
