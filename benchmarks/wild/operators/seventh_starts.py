"""Held-out mistakes in what a run starts with, the seventh set: initial weights, and inputs.

From trackers and forums: a uniform distribution over the wrong interval (skaae/rbm_toolbox_lua#9), as of
``nn.init.uniform_(weight, bound)``, whose upper bound is 1, gates that start shut, a normalisation whose mean and
deviation change places, a column that is the same for all and is divided by its deviation (mllam/neural-lam#136,
fastai/fastai#889), inputs that are shuffled apart from what belongs to them (MultimediaTechLab/YOLO#85).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.wild.operators.architecture import of_type
from benchmarks.wild.operators.data import float_inputs
from benchmarks.wild.operators.fifth_batches import _conditions, _given
from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.seventh_layers import sigmoids
from benchmarks.wild.operators.unseen_layers import plain_layers

SHUT = -20.0  # what a sigmoid makes nothing of


@torch.no_grad()
def _shut(layer: Any) -> None:
    """Shuts what a layer lets in: an LSTM its input, a GRU what is new, any other one all that it returns."""
    kind, size = type(layer), getattr(layer, "hidden_size", 0)
    if kind is nn.LSTM:
        layer.bias_ih_l0[:size] = SHUT
    elif kind is nn.GRU:
        layer.bias_ih_l0[size : 2 * size] = -SHUT
    else:
        layer.bias.fill_(SHUT)


@operator("init", "saturation", "zero-gradient", "dead-units", "output-scale", "constant-output", "input-ignored")
def gates_start_shut(s: Setup, at: Site) -> str | None:
    """The bias before the sigmoid of a gate starts far below zero: nothing goes through, and no gradient."""
    layers = set(plain_layers(s, at, bias=True))
    names = {layer for _, layer in sigmoids(at) if layer in layers and layer is not None}
    names |= {name for name in of_type(s, at, nn.LSTM, nn.GRU) if s.model.get_submodule(name).bias}
    if not names:
        return None
    name = at.choose.choice(sorted(names))
    _shut(s.model.get_submodule(name))
    return f"{name}: its gate starts with a bias of {SHUT:g}"


@operator("init", "output-scale", "saturation", "gradient-explosion", "symmetry", "dead-units")
def uniform_from_bound_to_one(s: Setup, at: Site) -> str | None:
    """``nn.init.uniform_(weight, bound)`` for ``uniform_(weight, -bound, bound)``: all are between the bound and 1."""
    names = plain_layers(s, at)
    if not names:
        return None
    name = at.choose.choice(names)
    weight = s.model.get_parameter(f"{name}.weight")
    bound = weight[0].numel() ** -0.5
    nn.init.uniform_(weight, min(bound, 0.9))
    return f"{name}: nn.init.uniform_(weight, {bound:.3g})"


@operator("scale", "input-scale", counts=BREAKING)
def mean_and_deviation_swapped(s: Setup, at: Site) -> str | None:
    """``Normalize(std, mean)`` for ``Normalize(mean, std)``: the inputs are divided by their mean, which is near 0."""
    found = [(path, each) for path, each in float_inputs(s, at) if each.dim() > 1 and not each.is_complex()]
    if not found:
        return None
    path, given = found[0]
    mean, deviation = float(given.mean()), float(given.std())
    if not 0 < abs(mean) < 0.1 * deviation:
        return None
    given.sub_(deviation).div_(mean)
    return f"batch{path}: (x - {deviation:.3g}) / {mean:.3g}"


@operator("scale", "nonfinite-data", "nonfinite-output", "nonfinite-loss", "nonfinite-gradient", "input-scale")
def constant_column_standardised(s: Setup, at: Site) -> str | None:
    """A column is the same for all samples, and is divided by its deviation: 0 / 0 is no number."""
    found = [(path, each) for path, each in float_inputs(s, at) if each.dim() in (2, 3) and each.shape[-1] > 1]
    if not found:
        return None
    path, given = found[0]
    column = given[..., 0]
    column.sub_(column).div_(torch.zeros_like(column))
    return f"batch{path}: a column without deviation is standardised"


@operator("order", "stochastic", "batch-changes", "target-mismatch", "batch-mixing", "label-conflict", "input-ignored")
def streams_shuffled_apart(s: Setup, at: Site) -> str | None:
    """Two inputs come from two loaders, each of which shuffles by itself: a sample has another one's condition."""
    found = _conditions(s, at)
    if not found or not at.trace.repeats:
        return None
    path, _ = at.choose.choice(found)
    _given(s, path, lambda value: value[torch.randperm(len(value))])
    return f"batch{path}: shuffled by itself in every step"
