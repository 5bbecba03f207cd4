"""Held-out mistakes inside of models, the eighth set.

What is written by hand again and again: ``cumsum`` along the samples, an additive mask that is made boolean, chunks of
a fixed size that leave rows unfilled, weights that are quantised without a straight-through estimator, a last
layer that is fused with a ReLU for evaluation, weights that are tied by copying them in forward, a weight norm of a
layer that starts at zero, a ramp that is counted in forward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from benchmarks.wild.operators.architecture import choose
from benchmarks.wild.operators.masks import exchange_hidden
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Forward, on_output, override
from benchmarks.wild.operators.seventh_layers import _with
from benchmarks.wild.operators.unseen_layers import _features, plain_layers

CHUNKS = (4, 3, 2)  # rows that are computed together
LEVELS = 7  # of a weight of four bits, on each side of zero
RAMP = 100  # calls until a part counts in full


@operator("axis", "batch-mixing")
def cumulative_over_batch(s: Setup, at: Site) -> str | None:
    """``x.cumsum(0)`` for ``x.cumsum(1)``: a sample's features are the sum of those of all samples before it."""
    if (name := choose(at, _features(at))) is None:
        return None
    on_output(s.model.get_submodule(name), lambda out: out.cumsum(0))
    return f"{name}: out.cumsum(0)"


@operator("mask", "leak", "input-ignored", "nonfinite-output", "nonfinite-loss", "nonfinite-gradient")
def additive_mask_made_boolean(s: Setup, at: Site) -> str | None:
    """A mask of 0 and minus infinity is made boolean: what was to be hidden is true, and alone is seen."""
    places = sorted({each.module for each in at.trace.hidings})
    if not places:
        return None
    name = at.choose.choice(places)
    exchange_hidden(s.model.get_submodule(name), torch.logical_not)
    return f"{name or 'the model'}: mask.bool() of a mask of 0 and -inf"


@operator("rows", "input-ignored", "label-conflict", "zero-gradient", "no-gradient", "constant-output", "loss-floor")
def rows_left_unfilled(s: Setup, at: Site) -> str | None:
    """``out = zeros(n)`` is filled in chunks, of which there are ``n // size``: the last samples stay at zero."""
    rows = at.trace.rows
    places = [call.name for call in _features(at) if (call.went or (0,))[0] == rows]
    size = next((each for each in CHUNKS if rows > each and rows % each), None)
    if not places or size is None:
        return None
    end = rows // size * size

    def filled(out: Tensor) -> Tensor:
        return torch.cat([out[:end], torch.zeros_like(out[end:])])

    on_output(s.model.get_submodule(places[-1]), filled)
    return f"{places[-1]}: for i in range({rows} // {size}): out[i * {size} : (i + 1) * {size}] = ..."


@operator("dtype", "zero-gradient", "no-gradient")
def weight_rounded_without_straight_through(s: Setup, at: Site) -> str | None:
    """A weight is quantised in forward, ``(w / scale).round() * scale``: the rounding has no gradient."""
    if not (names := plain_layers(s, at)):
        return None
    name = at.choose.choice(names)

    def forward(inner: Forward, x: Tensor) -> Tensor:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        scale = layer.weight.detach().abs().amax().clamp(min=1e-12) / LEVELS
        return _with(layer, x, (layer.weight / scale).round() * scale, layer.bias)

    override(s.model.get_submodule(name), forward)
    return f"{name}: (w / scale).round() * scale"


@operator("mode", "mode-gap")
def fused_with_activation_in_evaluation(s: Setup, at: Site) -> str | None:
    """The last layer is fused with a ReLU for evaluation, as all others are: in training nothing rectifies it."""
    if not (names := plain_layers(s, at)):
        return None

    def forward(inner: Forward, x: Tensor) -> Any:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        return inner(x) if layer.training else torch.relu(inner(x))

    override(s.model.get_submodule(names[-1]), forward)
    return f"{names[-1]}: fused with a ReLU in evaluation"


@operator("place", "weights-reset", "tie-lost", "no-update", "drift")
def tied_by_copy_in_every_call(s: Setup, at: Site) -> str | None:
    """``b.weight.data.copy_(a.weight.data)`` in forward, to tie two layers: what b learns is overwritten."""
    weights = {name: s.model.get_parameter(f"{name}.weight") for name in plain_layers(s, at)}
    names = [*weights]
    pairs = [
        (first, second)
        for number, first in enumerate(names)
        for second in names[number + 1 :]
        if weights[first].shape == weights[second].shape and weights[second].requires_grad
    ]
    if not pairs:
        return None
    first, second = at.choose.choice(pairs)
    layer = s.model.get_submodule(second)
    layer.__dict__["source"] = s.model.get_submodule(first)  # which is no part of the layer

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        tied: Any = inner.args[0]  # type: ignore[attr-defined]
        tied.weight.data.copy_(tied.__dict__["source"].weight.data)
        return inner(*args, **kwargs)

    override(layer, forward)
    return f"{second}: weight.data.copy_({first}.weight.data) in forward"


@operator("init", "nonfinite-output", "nonfinite-loss", "nonfinite-gradient")
def weight_norm_of_zero_weight(s: Setup, at: Site) -> str | None:
    """A layer starts at zero and has a weight norm, which divides by its length: 0 / 0 is no number."""
    layers: dict[str, Any] = {name: s.model.get_submodule(name) for name in plain_layers(s, at)}
    names = [name for name, each in layers.items() if each.weight.requires_grad]
    if not names:
        return None
    name = at.choose.choice(names)
    nn.init.zeros_(layers[name].weight)
    weight_norm(layers[name])
    return f"{name}: weight_norm of a weight that starts at zero"


@operator("misplaced", "drift", "stochastic", "output-scale", "mode-gap")
def ramp_counted_in_forward(s: Setup, at: Site) -> str | None:
    """``self.calls += 1`` in forward counts the steps of a ramp that fades a part in: every evaluation is one too."""
    if not at.trace.repeats or (name := choose(at, _features(at))) is None:
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        part: Any = inner.args[0]  # type: ignore[attr-defined]
        part.__dict__["calls"] = part.__dict__.get("calls", 0) + 1
        return inner(*args, **kwargs) * min(1.0, part.__dict__["calls"] / RAMP)

    override(s.model.get_submodule(name), forward)
    return f"{name}: out * min(1, self.calls / {RAMP}), counted in forward"
