"""Held-out mistakes inside of layers, the second set: parameters that are none, gradients that stop, initial values.

From trackers and forums: ``nn.Parameter(...).to(device)`` (a copy that is no parameter), a weight that is
read through ``.data``, a norm written out under no_grad, a reentrant checkpoint whose inputs need no gradient, lists
and sums that nobody clears between the steps, ``nn.init`` in forward, ``torch.empty``
that nobody fills, 1e5 for 1e-5, ``torch.clamp(x, max, min)``.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.wild.operators.architecture import choose, of_type
from benchmarks.wild.operators.held_back_training import _dropouts
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Forward, on_output, override
from benchmarks.wild.operators.trace import ModuleCall

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
NORMS = (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm)


def plain_layers(s: Setup, at: Site, *, bias: bool = False) -> list[str]:
    """Linear layers and convolutions of torch that were called, and that no one else shares a weight with."""
    shared = [id(each) for _, each in s.model.named_parameters(remove_duplicate=False)]
    names = []
    for call in at.trace.places(lambda call: call.own > 0 and call.graph):
        layer: Any = s.model.get_submodule(call.name)
        has = isinstance(layer.weight, nn.Parameter) if type(layer) in LAYERS else False
        if has and shared.count(id(layer.weight)) == 1 and (not bias or layer.bias is not None):
            names.append(call.name)
    return names


def _features(at: Site) -> list[ModuleCall]:
    """Parts with parameters whose output has a row for each sample, and nothing drawn on purpose."""
    names = at.trace.of_samples() if at.trace.more is not None else set()
    return at.trace.places(lambda call: call.graph and call.below > 0 and call.name in names)


def _unwrapped(s: Setup, at: Site, *, cast: bool) -> str | None:
    names = plain_layers(s, at)
    if not names:
        return None
    name = at.choose.choice(names)
    layer: Any = s.model.get_submodule(name)
    start = layer._parameters.pop("weight").detach().clone()
    layer.weight = nn.Parameter(start.double()).to(start.dtype) if cast else start
    return name


@operator("forgotten", "unregistered", "frozen", "optimizer-coverage", "no-gradient")
def parameter_not_wrapped(s: Setup, at: Site) -> str | None:
    """A weight is a plain tensor, without nn.Parameter: nothing trains or saves it."""
    name = _unwrapped(s, at, cast=False)
    return name and f"{name}.weight: a tensor"


@operator("place", "unregistered", "optimizer-coverage", "no-gradient")
def parameter_cast_outside(s: Setup, at: Site) -> str | None:
    """A weight is ``nn.Parameter(...).float()``, or ``.to(device)``: a copy, whose parameter belongs to nobody."""
    name = _unwrapped(s, at, cast=True)
    return name and f"{name}.weight: nn.Parameter(...).float()"


@operator("detached", "no-gradient")
def weight_read_through_data(s: Setup, at: Site) -> str | None:
    """A layer computes with ``self.weight.data``: its weight gets no gradient, its bias does."""
    names = plain_layers(s, at)
    if not names:
        return None
    name = at.choose.choice(names)

    def forward(inner: Forward, x: Tensor) -> Tensor:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        if isinstance(layer, nn.Linear):
            return F.linear(x, layer.weight.data, layer.bias)
        return layer._conv_forward(x, layer.weight.data, layer.bias)  # type: ignore[no-any-return]

    override(s.model.get_submodule(name), forward)
    return f"{name}: self.weight.data"


@operator("detached", "wrong-backward", "no-gradient")
def norm_statistics_detached(s: Setup, at: Site) -> str | None:
    """A layer norm takes mean and deviation under no_grad: the gradient is not that of what it computes."""
    names = [name for name in of_type(s, at, nn.LayerNorm) if len(s.model.get_submodule(name).normalized_shape) == 1]  # type: ignore[arg-type]
    if not names:
        return None
    name = at.choose.choice(names)

    def forward(inner: Forward, x: Tensor) -> Tensor:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        with torch.no_grad():
            mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        x = (x - mean) / (variance + layer.eps).sqrt()
        x = x if layer.weight is None else x * layer.weight
        return x if layer.bias is None else x + layer.bias

    override(s.model.get_submodule(name), forward)
    return f"{name}: mean and variance under no_grad"


@operator("detached", "no-gradient", "zero-gradient")
def checkpoint_of_first_part(s: Setup, at: Site) -> str | None:
    """A reentrant checkpoint around a part that reads the batch: no input needs a gradient, so none comes back."""
    below = at.trace.places(lambda call: call.graph and call.below > 0)
    shapes = {tuple(each.shape) for each in torch.utils._pytree.tree_leaves(s.batch) if isinstance(each, Tensor)}
    first = next((call for call in below if call.came in shapes and call.came is not None), None)
    if first is None:
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return inner(*args, **kwargs)
        return checkpoint(functools.partial(inner, **kwargs), *args, use_reentrant=True)

    override(s.model.get_submodule(first.name), forward)
    return f"{first.name}: checkpoint(use_reentrant=True)"


@operator("forgotten", "stochastic", "drift", "zero-gradient", "wrong-backward")
def list_never_cleared(s: Setup, at: Site) -> str | None:
    """Features are appended to a list that nobody clears: what goes on is the mean over all calls so far."""
    if not at.trace.repeats or (name := choose(at, _features(at))) is None:
        return None
    kept: list[Tensor] = []

    def average(out: Tensor) -> Tensor:
        same = [each for each in kept if each.shape == out.shape]
        kept.append(out.detach())
        return torch.stack([*same, out]).mean(0)

    on_output(s.model.get_submodule(name), average)
    return f"{name}: the mean of a list that grows"


@operator("forgotten", "drift", "stochastic", "gradient-explosion", "saturation")
def running_sum_for_mean(s: Setup, at: Site) -> str | None:
    """Features are centred by a running mean whose count is forgotten: it is a sum, and grows with every call."""
    if not at.trace.repeats or (name := choose(at, _features(at))) is None:
        return None
    layer: Any = s.model.get_submodule(name)
    sums: dict[str, Tensor] = {}

    def centred(out: Tensor) -> Tensor:
        if not layer.training:
            return out - sums.get("", out.new_zeros(()))
        if "" not in sums or sums[""].shape == out.shape[1:]:
            sums[""] = sums.get("", out.new_zeros(out.shape[1:])) + out.detach().mean(0)
        return out - sums[""]

    on_output(layer, centred)
    return f"{name}: a running sum for a mean"


@operator("misplaced", "weights-reset", "no-update", "drift")
def initialised_in_forward(s: Setup, at: Site) -> str | None:
    """``nn.init.zeros_`` of a layer's bias stands in forward: each call takes the update back."""
    names = plain_layers(s, at, bias=True)
    if not names:
        return None
    name = at.choose.choice(names)

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        nn.init.zeros_(layer.bias)
        return inner(*args, **kwargs)

    override(s.model.get_submodule(name), forward)
    return f"{name}: nn.init.zeros_(self.bias) in forward"


@operator("swapped", "constant-output", "loss-clamped", "zero-gradient", "no-gradient")
def clamp_bounds_swapped(s: Setup, at: Site) -> str | None:
    """``torch.clamp(x, MAX, MIN)``: every element is the upper bound that was given, whatever it was."""
    if (name := choose(at, at.trace.places(lambda call: call.graph and call.below > 0))) is None:
        return None
    on_output(s.model.get_submodule(name), lambda out: torch.clamp(out, 2.0, -5.0))
    return f"{name}: clamp(2, -5)"


@operator("swapped", "stochastic", "mode-gap", needs="dropout")
def keep_rate_for_drop_rate(s: Setup, at: Site) -> str | None:
    """Dropouts are given the share that is to be kept, as in another framework: most is dropped."""
    names = [name for name in _dropouts(s, at) if float(s.model.get_submodule(name).p) < 0.4]  # type: ignore[arg-type]
    for name in names:
        layer: Any = s.model.get_submodule(name)
        layer.p = 1 - layer.p
    return f"{names[0]} and others: p=1-p" if names else None


@operator("mode", "mode-gap", "drift", needs="batchnorm")
def statistics_reset_in_step(s: Setup, at: Site) -> str | None:
    """Batch norms are reset whenever training goes on: evaluation has the statistics of one step."""
    names = [n for n in of_type(s, at, nn.BatchNorm1d, nn.BatchNorm2d) if s.model.get_submodule(n).track_running_stats]
    if not names:
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        model: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        for name in names if model.training else ():
            layer: Any = model.get_submodule(name)
            layer.reset_running_stats()
        return inner(*args, **kwargs)

    override(s.model, forward)
    return f"{names[0]} and others: reset_running_stats() in every step"


@operator("init", "symmetry", "output-scale", "saturation", "gradient-explosion")
def layer_of_ones(s: Setup, at: Site) -> str | None:
    """The weight of a layer starts at one everywhere, as that of a norm does: its units are all the same."""
    weights: dict[str, Any] = {name: s.model.get_submodule(name).weight for name in plain_layers(s, at)}
    names = [name for name, weight in weights.items() if weight.shape[0] > 2]
    if not names:
        return None
    name = at.choose.choice(names)
    nn.init.ones_(weights[name])
    return f"{name}.weight: 1"


@operator("init", "nonfinite-output", "nonfinite-loss", "gradient-explosion", "output-scale")
def parameter_left_empty(s: Setup, at: Site) -> str | None:
    """A bias is torch.empty that nobody fills: some of its numbers are whatever the memory held."""
    names = plain_layers(s, at, bias=True)
    if not names:
        return None
    name = at.choose.choice(names)
    bias: Any = s.model.get_submodule(name).bias
    with torch.no_grad():
        bias[::3] = 4.6e24
    return f"{name}.bias: torch.empty"


@operator("scale", "output-scale", "constant-output", "zero-gradient")
def norm_epsilon_huge(s: Setup, at: Site) -> str | None:
    """The epsilon of the norms is 1e5 for 1e-5: they scale what they get to nothing."""
    names = of_type(s, at, *NORMS)
    for name in names:
        layer: Any = s.model.get_submodule(name)
        layer.eps = 1e5
    return f"{names[0]} and others: eps=1e5" if names else None
