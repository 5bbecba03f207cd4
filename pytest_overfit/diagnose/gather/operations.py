"""Operations worth a note, and what is measured of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.evidence import Op
from pytest_overfit.diagnose.gather.padding import keys_let_through, keys_read, reads_padding_alone
from pytest_overfit.diagnose.gather.targets import origin_of
from pytest_overfit.diagnose.gather.tensors import final_operation, is_real, tensors_in

if TYPE_CHECKING:
    from pytest_overfit.diagnose.gather.xray import XRay

CLASSIFIERS = ("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div",
               "ctc_loss", "soft_margin_loss", "multi_margin_loss")  # fmt: skip
REGRESSORS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "gaussian_nll_loss", "poisson_nll_loss",
              "cosine_embedding_loss")  # fmt: skip
LOSSES = frozenset(CLASSIFIERS + REGRESSORS)
ARITHMETIC = frozenset({"sub", "__sub__", "__rsub__", "rsub", "add", "__add__", "mul", "__mul__", "div", "__truediv__"})
SQUASHERS = frozenset({"softmax", "log_softmax", "sigmoid", "tanh"})
RECTIFIERS = frozenset({"relu", "relu_", "relu6", "threshold"})
CUTS = frozenset({
    "detach", "data", "detach_", "item", "numpy", "tolist", "argmax", "round", "sign", "floor", "ceil", "trunc",
    "gt", "lt", "ge", "le", "eq", "__gt__", "__lt__", "__ge__", "__le__", "__eq__", "multinomial", "one_hot", "long",
    "int", "heaviside", "bucketize", "sgn",
})  # fmt: skip
STEPS = ("round", "sign", "floor", "ceil", "trunc", "sgn")  # with a gradient of zero
CLAMPS = frozenset(
    {"clamp", "clip", "clamp_", "clip_", "clamp_min", "clamp_max", "clamp_max_", "clamp_min_", "hardtanh"}
)
RANDOM = frozenset({
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "rand", "randn",
    "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "bernoulli_", "normal", "normal_",
    "uniform_", "exponential_", "multinomial", "gumbel_softmax", "random_", "poisson", "rrelu", "dropout_",
})  # fmt: skip
FRESH = frozenset({"tensor", "as_tensor", "from_numpy", "zeros_like", "ones_like", "full_like", "empty_like"})
ATTENTIONS = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
_NOTED = LOSSES | SQUASHERS | RECTIFIERS | CUTS | CLAMPS | RANDOM | FRESH | ARITHMETIC | ATTENTIONS


def is_noted(name: str) -> bool:
    return name in _NOTED or name.endswith("!")


def describe(
    xray: XRay, name: str, region: str, args: Any, kwargs: Any, out: Any, line: Callable[[], str]
) -> Op | None:
    """What is worth keeping of an operation; None where nothing is."""
    given = list(tensors_in([*args, *kwargs.values()], depth=2))
    shapes = tuple(tuple(t.shape) for t in given)
    if isinstance(out, Tensor):
        shapes = (*shapes, tuple(out.shape))
    if name.endswith("!"):
        return Op("in_place", region, line(), shapes, notes={"key": xray.keys.get(id(args[0]), ""), "by": name[:-1]})
    if name in LOSSES:
        return _loss(xray, name, region, given, kwargs, shapes, line)
    if name in ARITHMETIC:
        return _arithmetic(xray, name, region, args, out, shapes, line)
    if name in SQUASHERS:
        return _squasher(xray, name, region, args, kwargs, out, shapes, line)
    if name in RECTIFIERS:
        return _rectifier(region, args, out, shapes, line)
    if name in CLAMPS:
        return _clamp(region, args, out, shapes, line)
    if name in CUTS:
        return _cut(name, region, args, out, shapes, line)
    if name in RANDOM:
        return _random(xray, name, region, given, args, kwargs, shapes, line)
    if name in ATTENTIONS:
        return _attention(xray, name, region, args, kwargs, shapes, line)
    if name in FRESH and isinstance(out, Tensor):
        return _fresh(xray, name, region, given, out, shapes, line)
    return None


def _cut(name: str, region: str, args: Any, out: Any, shapes: Any, line: Any) -> Op | None:
    """What takes a number that has a gradient out of the graph."""
    source = args[0] if args and isinstance(args[0], Tensor) else None
    if source is None or not source.requires_grad:
        return None
    if isinstance(out, Tensor) and out.requires_grad and name not in STEPS:
        return None
    return Op(name, region, line(), shapes, final_operation(source), {"scalar": float(source.numel() == 1)})


def _random(
    xray: XRay, name: str, region: str, given: list[Tensor], args: Any, kwargs: Any, shapes: Any, line: Any
) -> Op | None:
    training = kwargs.get("training", args[2] if len(args) > 2 and isinstance(args[2], bool) else True)
    share = kwargs.get("p", args[1] if len(args) > 1 and isinstance(args[1], float) else math.nan)
    drops = "dropout" in name
    if drops and (not training or share == 0):
        return None
    on_input = bool(given) and id(given[0]) in xray.keys
    numbers = {"p": float(share) if drops else math.nan, "input": float(on_input)}
    return Op("random", region, line(), shapes, notes={"by": name}, numbers=numbers)


def _fresh(xray: XRay, name: str, region: str, given: list[Tensor], out: Tensor, shapes: Any, line: Any) -> Op | None:
    """A tensor made anew, of a number that had a gradient or in the place of an input."""
    on_input = bool(given) and id(given[0]) in xray.keys
    if name.endswith("_like") and not on_input:
        return None
    cut = any(t.requires_grad for t in given) and not out.requires_grad
    leaf = name in ("tensor", "as_tensor", "from_numpy") and out.requires_grad
    if not (on_input or cut or leaf):
        return None
    key = xray.keys.get(id(given[0]), "") if given else ""
    return Op("fresh", region, line(), shapes, notes={"by": name, "key": key})


def _loss(xray: XRay, name: str, region: str, given: list[Tensor], kwargs: Any, shapes: Any, line: Any) -> Op | None:
    if len(given) < 2:
        return None
    predicted, target = given[0].detach(), given[1].detach()
    numbers: dict[str, float] = {"grad": float(given[0].requires_grad)}
    if is_real(predicted) and predicted.numel():
        numbers |= {"low": float(predicted.min()), "high": float(predicted.max())}
    if name in CLASSIFIERS and predicted.dim() >= 1 and predicted.numel():
        axis = -1 if name in ("ctc_loss", "kl_div") else 1 if predicted.dim() > 1 else 0
        total = predicted.double().sum(axis)
        numbers["sum_error"] = float((total - 1).abs().max())
        numbers["log_sum_error"] = float(predicted.double().logsumexp(axis).abs().max())
        numbers["classes"] = float(predicted.shape[axis])
    if is_real(target) and target.numel():
        numbers |= {"target_low": float(target.min()), "target_high": float(target.max())}
    elif target.numel():
        numbers |= {"target_low": float(target.min()), "target_high": float(target.max())}
        ignored = int(kwargs.get("ignore_index", -100))
        numbers["supervised"] = float((target != ignored).sum())
    numbers["smoothing"] = float(kwargs.get("label_smoothing", 0.0) or 0.0)
    numbers["sum"] = float(kwargs.get("reduction") == "sum")
    notes = {**origin_of(xray.batch, target), **_scrambled(xray, predicted), **_added(xray, predicted, target)}
    return Op(name, region, line(), shapes, final_operation(given[0]), numbers, notes)


def _scrambled(xray: XRay, predicted: Tensor) -> dict[str, str]:
    """A prediction (N, C) that is an output (B, C, ...) reshaped without its axes having been exchanged."""
    for output in xray.outputs:
        if (
            predicted.dim() != 2
            or output.dim() < 3
            or output.numel() != predicted.numel()
            or output.shape[1] != predicted.shape[1]
        ):
            continue
        right = output.movedim(1, -1).reshape(predicted.shape)
        if torch.equal(output.reshape(predicted.shape), predicted) and not torch.equal(right, predicted):
            return {"scrambled": f"{tuple(output.shape)} was reshaped to {tuple(predicted.shape)}"}
    return {}


def _added(xray: XRay, predicted: Tensor, target: Tensor) -> dict[str, str]:
    """A prediction that is an output and the target itself: what is compared is the output with zero."""
    if predicted.shape != target.shape or not is_real(predicted) or not is_real(target) or predicted.numel() < 4:
        return {}
    size = float(target.abs().max())
    for output in xray.outputs:
        if size > 0 and output.shape == predicted.shape and float(output.abs().max()) > 1e-3 * size:
            gap = float((predicted - target - output).abs().max())
            if gap <= 1e-5 * size:
                return {"added": "the target"}
    return {}


def _arithmetic(xray: XRay, name: str, region: str, args: Any, out: Any, shapes: Any, line: Any) -> Op | None:
    """A difference of a prediction and a target, or two shapes that broadcast both ways."""
    if len(args) < 2 or not all(isinstance(a, Tensor) for a in args[:2]) or not isinstance(out, Tensor):
        return None
    a, b = args[:2]
    if out.numel() > max(a.numel(), b.numel()) > 1 and min(a.numel(), b.numel()) > 1:
        numbers = {
            "same_count": float(a.numel() == b.numel()),
            "ranks_differ": float(a.dim() != b.dim()),
            "grads": float(a.requires_grad) + float(b.requires_grad),
        }
        return Op("broadcast", region, line(), shapes, numbers=numbers, notes={"by": name})
    if not xray.in_model and "sub" in name and a.shape == b.shape and a.requires_grad != b.requires_grad:
        predicted, target = (a, b) if a.requires_grad else (b, a)
        if predicted.numel() > 1 and is_real(target):
            detached = target.detach()
            numbers = {
                "low": float(predicted.detach().min()),
                "high": float(predicted.detach().max()),
                "target_low": float(detached.min()),
                "target_high": float(detached.max()),
                "grad": 1.0,
            }
            same = predicted.shape == detached.shape and bool(torch.equal(predicted.detach(), detached))
            notes = {**origin_of(xray.batch, detached), **({"same": "the prediction itself"} if same else {})}
            notes |= _added(xray, predicted.detach(), detached)
            return Op("difference", region, line(), shapes, final_operation(predicted), numbers, notes)
    return None


def _squasher(
    xray: XRay, name: str, region: str, args: Any, kwargs: Any, out: Any, shapes: Any, line: Any
) -> Op | None:
    if not isinstance(out, Tensor) or not is_real(out) or not out.numel():
        return None
    value = out.detach().double()
    numbers: dict[str, float] = {}
    if name == "tanh":
        numbers["bound"] = float((value.abs() > 0.9995).double().mean())
    elif name == "sigmoid":
        numbers["bound"] = float(((value < 5e-4) | (value > 1 - 5e-4)).double().mean())
    else:
        dim = kwargs.get("dim", next((a for a in args[1:] if isinstance(a, int) and not isinstance(a, bool)), None))
        axis = -1 if dim is None else int(dim)
        axis = axis % out.dim() if out.dim() else 0
        numbers |= {
            "axis": float(axis),
            "ranks": float(out.dim()),
            "length": float(out.shape[axis]) if out.dim() else 1.0,
        }
        probability = value.exp() if name == "log_softmax" else value
        numbers["bound"] = float((probability.amax(axis) > 0.999).double().mean())
        numbers["over_samples"] = float(axis == 0 and out.dim() > 1 and out.shape[0] == xray.samples)
        last = name == "softmax" and axis == out.dim() - 1 > 1
        numbers["padding_alone"] = float(last and _inverted(xray, keys_read(out, len(out))))
    if isinstance(args[0], Tensor) and args[0].numel():
        numbers |= {"low": float(args[0].detach().min()), "high": float(args[0].detach().max())}
    return Op(name, region, line(), shapes, numbers=numbers)


def _rectifier(region: str, args: Any, out: Any, shapes: Any, line: Any) -> Op | None:
    if not isinstance(out, Tensor) or out.numel() < 2:
        return None
    fires = out.detach() > 0
    axis = 1 if fires.dim() in (4, 5) else fires.dim() - 1
    units = fires.movedim(axis, 0).reshape(fires.shape[axis], -1).any(1)
    return Op(
        "relu", region, line(), shapes, numbers={"dead": float((~units).double().mean()), "units": float(len(units))}
    )


def _clamp(region: str, args: Any, out: Any, shapes: Any, line: Any) -> Op | None:
    source = args[0] if args and isinstance(args[0], Tensor) else None
    if source is None or not isinstance(out, Tensor) or not source.requires_grad or source.shape != out.shape:
        return None
    share = float((source.detach() != out.detach()).double().mean()) if source.numel() else 0.0
    numbers = {
        "share": share,
        "scalar": float(source.numel() == 1),
        "low": float(source.detach().min()),
        "high": float(source.detach().max()),
        "out_low": float(out.detach().min()),
        "out_high": float(out.detach().max()),
    }
    return Op("clamp", region, line(), shapes, final_operation(source), numbers)


def _takes_part(mask: Tensor) -> Tensor:
    """A mask of keys as an additive one: True leaves a key out there."""
    return torch.zeros(mask.shape).masked_fill(mask.cpu(), -math.inf) if mask.dtype is torch.bool else mask


def _inverted(xray: XRay, read: Tensor | None) -> bool:
    """Whether an attention reads the padding of the batch and nothing else."""
    padding = xray.padding if read is not None else None
    return padding is not None and read is not None and reads_padding_alone(padding.cpu(), read.cpu())


def _attention(xray: XRay, name: str, region: str, args: Any, kwargs: Any, shapes: Any, line: Any) -> Op | None:
    if name == "multi_head_attention_forward":  # its logits stay inside: of them only the mask is known
        left_out = kwargs.get("key_padding_mask")
        alone = left_out is not None and _inverted(xray, keys_let_through(_takes_part(left_out), len(left_out)))
        return Op("heads", region, line(), shapes, numbers={"padding_alone": 1.0}) if alone else None
    query, key = args[0].detach().double(), args[1].detach().double()
    if query.shape[-2] * key.shape[-2] * max(1, query[..., 0, 0].numel()) > 500_000:
        return None
    scale = kwargs.get("scale")
    logits = query @ key.transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    bound = float((logits.softmax(-1).amax(-1) > 0.999).double().mean()) if key.shape[-2] > 1 else 0.0
    causal = bool(kwargs.get("is_causal", args[5] if len(args) > 5 else False))
    mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
    numbers = {
        "bound": bound,
        "deviation": float(logits.std()) if logits.numel() > 1 else 0.0,
        "length": float(key.shape[-2]),
        "causal": float(causal),
        "masked": float(mask is not None),
        "padding_alone": float(mask is not None and _inverted(xray, keys_let_through(mask, len(mask)))),
    }
    return Op("attention", region, line(), shapes, numbers=numbers)
