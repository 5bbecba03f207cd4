"""The cameras of a batch in all common encodings, each asked of the loss."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.run.loop import evaluating
from pytest_overfit.run.names import resolve_term
from pytest_overfit.run.task import scalar_terms
from pytest_overfit.two_view.application import pose_of
from pytest_overfit.two_view.diagnose.predicted_depth import FAR, EncodingCompared
from pytest_overfit.two_view.reference.pose import encode_pose

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
