"""The two-view multitask loss: camera, and depth with confidence and gradients.

Shape legend: B samples, S frames, H W height and width in pixels, n stages of the camera head.
Units: the batch is normalised (`data.normalize_batch`): lengths are multiples of the mean distance to the first camera.
Nothing here reads a number back from the device: on CUDA a call costs no host-device sync.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit.errors import ConfigError, OverfitError
from pytest_overfit.errors.suggest import nearest
from pytest_overfit.two_view.reference.pose import encode_pose

LOSS_TYPES = ("l1", "l2", "smooth_l1", "huber")
CLAMP = 100.0  # every residual, and the depth target, lives in [-100, 100]
MIN_POINTS = 100  # a first frame needs more valid points, a batch at least as many valid pixels
MIN_QUANTILE = 1000  # the worst pixels are dropped only if more than this many remain

_DEFAULTS: Mapping[str, Any] = MappingProxyType({})
_Term = TypeVar("_Term", "CameraTerm", "DepthTerm")


@dataclass(frozen=True)
class CameraTerm:
    """Settings of the camera part: `weight (weight_trans T + weight_rot R + weight_focal FL)`."""

    weight: float = 5.0
    loss_type: str = "l1"
    gamma: float = 0.6
    weight_trans: float = 1.0
    weight_rot: float = 1.0
    weight_focal: float = 0.5
    pose_encoding_type: str = "absT_quaR_FoV"

    def __post_init__(self) -> None:
        _expect_choice("camera.loss_type", self.loss_type, LOSS_TYPES)
        _expect_choice("camera.pose_encoding_type", self.pose_encoding_type, ("absT_quaR_FoV",))


@dataclass(frozen=True)
class DepthTerm:
    """Settings of the depth part: `weight (conf + reg + grad)`."""

    weight: float = 1.0
    gradient_loss_fn: str | None = "grad"
    valid_range: float | None = 0.98
    alpha: float = 0.2
    gamma: float = 1.0

    def __post_init__(self) -> None:
        _expect_choice("depth.gradient_loss_fn", self.gradient_loss_fn, ("grad", None))
        if self.valid_range is not None and self.valid_range > 1:
            raise ConfigError(f"{self.valid_range}", where="depth.valid_range", allowed="0..1; 0 or null: off")


class MultitaskLoss(nn.Module):
    """Camera and depth loss of a two-view model, equal to the original on finite numbers.

    Example:
        >>> loss = MultitaskLoss(camera={"weight": 5.0, "loss_type": "l1"}, depth={"weight": 1.0})  # doctest: +SKIP
        >>> terms = loss(predictions, batch)  # doctest: +SKIP
        >>> terms["objective"].backward()  # doctest: +SKIP

    Args:
        camera: keys of `CameraTerm`; {} takes the defaults, None leaves the part out.
        depth: keys of `DepthTerm`; likewise.
        point, track: parts of the original that are not supported here; only None is accepted.

    A call `loss(predictions, batch)` takes
        predictions: `pose_enc_list` n stages of (B, S, 9), `depth` (B, S, H, W, 1), `depth_conf` (B, S, H, W) > 0;
            a part whose prediction is missing is left out.
        batch: `images` (B, S, 3, H, W), `point_masks` (B, S, H, W) bool, and for the camera `extrinsics` (B, S, 3, 4)
            world2cam (OpenCV axes) and `intrinsics` (B, S, 3, 3) in pixels, for the depth `depths` (B, S, H, W).
    and returns 0-d tensors `objective`, `loss_camera`, `loss_T`, `loss_R`, `loss_FL`, `loss_conf_depth`,
    `loss_reg_depth`, `loss_grad_depth`.

    Kept from the original, because values must agree: fewer than 100 valid pixels give a depth part of exactly 0, no
    sample whose first frame has more than 100 valid points a camera part of exactly 0 (an all-zero batch "passes");
    the worst 2 % of the pixels count in the gradient term only; the confidence term has no floor.
    Not kept: the original replaces NaN and Inf by 0. Here a non-finite prediction or target makes its terms NaN.

    Raises:
        ConfigError: an unknown key or value of `camera` or `depth`, both None, or `point` or `track` not None.
        OverfitError: predictions or batch lack a key or have a wrong shape.

    Source: VGGT (Wang et al., CVPR 2025, section 3.4) and its public training code.
    """

    def __init__(
        self,
        camera: Mapping[str, Any] | None = _DEFAULTS,
        depth: Mapping[str, Any] | None = _DEFAULTS,
        point: None = None,
        track: None = None,
    ) -> None:
        super().__init__()
        for name, part in (("point", point), ("track", track)):
            if part is not None:
                raise ConfigError(f"{part!r}: this part is not supported by this loss", where=name, allowed="null")
        if camera is None and depth is None:
            raise ConfigError("camera and depth are both null: nothing to learn", where="loss")
        self.camera = None if camera is None else _read_term(CameraTerm, "camera", camera)
        self.depth = None if depth is None else _read_term(DepthTerm, "depth", depth)

    def forward(self, predictions: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        objective: Tensor | None = None
        if self.camera is not None and "pose_enc_list" in predictions:
            terms |= camera_loss(predictions, batch, self.camera)
            objective = self.camera.weight * terms["loss_camera"]
        if self.depth is not None and "depth" in predictions:
            parts = depth_loss(predictions, batch, self.depth)
            terms |= parts
            total = parts["loss_conf_depth"] + parts["loss_reg_depth"] + parts["loss_grad_depth"]
            objective = self.depth.weight * total + (0 if objective is None else objective)
        if objective is None:
            wanted = [k for k, part in (("pose_enc_list", self.camera), ("depth", self.depth)) if part is not None]
            raise OverfitError(
                f"nothing to supervise among {sorted(predictions)}", where="predictions", allowed=" or ".join(wanted)
            )
        return {"objective": objective, **terms}


def camera_loss(predictions: Mapping[str, Any], batch: Mapping[str, Any], term: CameraTerm) -> dict[str, Tensor]:
    """Translation, rotation and field-of-view error of every stage, later stages weighted more.

    Stage k of n has weight gamma^(n-1-k); the weighted sum is divided by n. A quaternion and its negative are the
    same rotation, but -q is punished. Shapes, gate and errors as in `MultitaskLoss`.
    """
    height, width = _get("batch", batch, "images").shape[-2:]
    target = encode_pose(_get("batch", batch, "extrinsics"), _get("batch", batch, "intrinsics"), (height, width))
    stages: Sequence[Tensor] = predictions["pose_enc_list"]
    if len(stages) == 0:
        raise OverfitError("no stage", where="predictions['pose_enc_list']", allowed="at least one (B, S, 9)")
    gate = _get("batch", batch, "point_masks")[:, 0].flatten(1).sum(-1) > MIN_POINTS
    totals = [target.new_zeros(()) for _ in range(3)]
    for k, stage in enumerate(stages):
        _expect_shape(f"predictions['pose_enc_list'][{k}]", stage, target)
        weight = term.gamma ** (len(stages) - 1 - k) / len(stages)
        for i, part in enumerate((slice(0, 3), slice(3, 7), slice(7, 9))):
            error = _pose_error(stage[..., part], target[..., part], term.loss_type)
            totals[i] = totals[i] + weight * _masked_mean(error, gate.view(-1, 1, 1).expand_as(error))
    t, r, fl = (total + _poison(target, *stages) for total in totals)
    camera = term.weight_trans * t + term.weight_rot * r + term.weight_focal * fl
    return {"loss_camera": camera, "loss_T": t, "loss_R": r, "loss_FL": fl}


def depth_loss(predictions: Mapping[str, Any], batch: Mapping[str, Any], term: DepthTerm) -> dict[str, Tensor]:
    """Absolute depth error, plain and weighted by confidence, and the error of its gradients at four scales.

    With c the confidence: conf = gamma |gt - pred| c - alpha ln c. Shapes, gate and errors as in `MultitaskLoss`.
    """
    target = _get("batch", batch, "depths")
    mask = _get("batch", batch, "point_masks").bool()
    raw, conf = predictions["depth"], _get("predictions", predictions, "depth_conf")
    _expect_shape("predictions['depth']", raw, target[..., None])
    _expect_shape("predictions['depth_conf']", conf, target)
    dtype = torch.promote_types(raw.dtype, torch.float32)  # half precision would lose the logarithm and the means
    pred, conf, gt = raw.squeeze(-1).to(dtype), conf.to(dtype), target.clamp(-CLAMP, CLAMP).to(dtype)

    reg = (gt - pred).abs().clamp(max=CLAMP)
    safe = torch.where(mask, conf, 1.0)  # an unsupervised pixel must not send 0 * inf into the gradient
    weighted = (term.gamma * reg * safe - term.alpha * safe.log()).clamp(-CLAMP, CLAMP)
    enough = mask.sum() >= MIN_POINTS
    values = {
        "loss_conf_depth": _trimmed_mean(weighted, mask, term.valid_range),
        "loss_reg_depth": _trimmed_mean(reg, mask, term.valid_range),
        "loss_grad_depth": pred.new_zeros(()) if term.gradient_loss_fn is None else _gradient_error(pred, gt, mask),
    }
    poison = _poison(raw, conf, target)
    return {name: torch.where(enough, value, 0.0) + poison for name, value in values.items()}


def _pose_error(pred: Tensor, gt: Tensor, loss_type: str) -> Tensor:
    if loss_type == "l1":
        error = (pred - gt).abs()
    elif loss_type == "l2":
        error = torch.linalg.vector_norm(pred - gt, dim=-1, keepdim=True)
    elif loss_type == "smooth_l1":
        error = F.smooth_l1_loss(pred, gt, reduction="none")
    else:
        error = F.huber_loss(pred, gt, reduction="none")
    return error.clamp(max=CLAMP)


def _trimmed_mean(values: Tensor, mask: Tensor, valid_range: float | None) -> Tensor:
    """Mean over the mask of the values strictly below their quantile; of all of them where those are too few."""
    if valid_range is None or valid_range <= 0:
        return _masked_mean(values, mask)
    ordered = torch.where(mask, values.detach(), torch.inf).flatten()
    quantile = _sort_quantile if values.is_cuda else _select_quantile
    threshold = quantile(ordered, mask.sum(), valid_range)
    kept = mask & ~(values.detach() >= threshold)  # not "< threshold": that would drop a NaN as an outlier
    return _masked_mean(values, torch.where(kept.sum() > MIN_QUANTILE, kept, mask))


def _select_quantile(padded: Tensor, count: Tensor, q: float) -> Tensor:
    """The value at index round(q (count - 1)) of the `count` values in `padded`, whose other entries are +inf.

    Selecting is several times cheaper than sorting, but reads the count: a host-device sync, so not for CUDA.
    """
    return padded.kthvalue(max(round(q * (int(count) - 1)), 0) + 1).values


def _sort_quantile(padded: Tensor, count: Tensor, q: float) -> Tensor:
    """The same without reading anything back from the device; torch rounds half to even, as Python does."""
    index = (q * (count - 1).double()).round().long().clamp(min=0)
    return padded.sort().values.gather(0, index[None])[0]


def _gradient_error(pred: Tensor, gt: Tensor, mask: Tensor) -> Tensor:
    """Mean over the steps 1, 2, 4, 8 of the change of the error between valid neighbours, per valid pixel."""
    total = pred.new_zeros(())
    for step in (1, 2, 4, 8):
        m = mask[..., ::step, ::step].to(pred.dtype)
        error = (pred[..., ::step, ::step] - gt[..., ::step, ::step]) * m
        dx = (error[..., :, 1:] - error[..., :, :-1]).abs() * (m[..., :, 1:] * m[..., :, :-1])
        dy = (error[..., 1:, :] - error[..., :-1, :]).abs() * (m[..., 1:, :] * m[..., :-1, :])
        total = total + (dx.clamp(max=CLAMP).sum() + dy.clamp(max=CLAMP).sum()) / m.sum().clamp(min=1)
    return total / 4


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask, 0 over an empty one."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def _poison(*tensors: Tensor) -> Tensor:
    """0 while every number is finite, else NaN: clamps, masks and quantiles must not swallow a NaN or an Inf."""
    return torch.stack([(tensor.detach() * 0).sum().float() for tensor in tensors]).sum()


def _read_term(kind: type[_Term], where: str, given: Mapping[str, Any]) -> _Term:
    known = [field.name for field in fields(kind)]
    problems = []
    for key in given:
        if key not in known:
            near = nearest(str(key), known)
            problems.append(f"unknown key {key!r}" + (f", did you mean {near!r}?" if near else ""))
        elif isinstance(getattr(kind, key), float) and not _is_number(given[key], key):
            # PyYAML reads `1e-4` as a string.
            problems.append(f"{key} is {given[key]!r}, not a number")
    if problems:
        raise ConfigError("; ".join(problems), where=where, allowed=", ".join(known))
    return kind(**given)


def _is_number(value: object, key: str) -> bool:
    if value is None:
        return key == "valid_range"
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _expect_choice(where: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        names = ", ".join("null" if choice is None else str(choice) for choice in allowed)
        raise ConfigError(f"{value!r}", where=where, allowed=names)


def _get(owner: str, mapping: Mapping[str, Any], key: str) -> Tensor:
    if key not in mapping:
        raise OverfitError(f"no key {key!r} among {sorted(mapping)}", where=owner)
    tensor: Tensor = mapping[key]
    return tensor


def _expect_shape(where: str, tensor: Tensor, like: Tensor) -> None:
    # Broadcasting (B, S, H, W) against (B, S, H, W, 1) would give a number, and the wrong one.
    if tensor.shape != like.shape:
        raise OverfitError(f"shape {tuple(tensor.shape)}", where=where, allowed=f"{tuple(like.shape)}")
