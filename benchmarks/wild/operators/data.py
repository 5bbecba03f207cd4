"""Mistakes with the batch, and with its numbers' types."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.rewrite import Forward, override
from benchmarks.wild.operators.trace import leaves


def float_inputs(s: Setup, at: Site) -> list[tuple[str, Tensor]]:
    """The tensors of floating point that the model gets as they stand in the batch."""
    return [(path, each) for path, each in leaves(s.batch) if path in at.trace.inputs and each.is_floating_point()]


@operator("scale", "input-scale", counts=BREAKING)
def inputs_not_normalised(s: Setup, at: Site) -> str | None:
    """The inputs have an offset and a scale of thousands."""
    found = float_inputs(s, at)
    if not found:
        return None
    path, tensor = found[0]
    tensor.mul_(1000).add_(50_000)
    return f"batch{path}: x 1000 + 50000"


@operator("dtype", "degenerate-batch", "label-conflict", "input-scale", needs="image")
def integer_division(s: Setup, at: Site) -> str | None:
    """The image is divided by 255 as whole numbers: all of it is zero."""
    found = [(path, each) for path, each in float_inputs(s, at) if each.dim() == 4]
    if not found:
        return None
    path, image = found[0]
    low, high = image.min(), image.max()
    image.copy_(((image - low) / (high - low) * 254).byte() // 255)
    return f"batch{path}: uint8 // 255"


@operator("place", "batch-changes")
def batch_changed_in_place(s: Setup, at: Site) -> str | None:
    """The model normalises its input in place, in every step once more."""
    found = float_inputs(s, at)
    if not found:
        return None
    path, given = found[0]
    shape = given.shape

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        for each in (*args, *kwargs.values()):
            if isinstance(each, Tensor) and each.shape == shape and each.is_floating_point() and not each.requires_grad:
                each.sub_(0.1).div_(1.1)
                break
        return inner(*args, **kwargs)

    override(s.model, forward)
    return f"batch{path}: x.sub_().div_() in forward"


@operator("dtype", "precision", "optimizer-hyperparameter", "nonfinite-output", "nonfinite-gradient")
def half_without_scaler(s: Setup, at: Site) -> str | None:
    """Model and inputs are float16, and the optimizer's epsilon is zero in it."""
    s.model.half()

    def to(dtype: torch.dtype, nest: Any) -> Any:
        return _pytree.tree_map(lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x, nest)

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        return to(torch.float32, inner(*to(torch.float16, args), **to(torch.float16, kwargs)))

    override(s.model, forward)
    return "model.half()"
