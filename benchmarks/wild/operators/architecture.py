"""Mistakes inside of a model: axes, masks, modes, order, initial values and scales."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.rewrite import Forward, exchange_in, on_output, override
from benchmarks.wild.operators.trace import ACTIVATIONS, ATTENTION, SOFTMAX, ModuleCall


def choose(at: Site, places: list[ModuleCall]) -> str | None:
    return at.choose.choice(places).name if places else None


def of_type(s: Setup, at: Site, *types: type[nn.Module]) -> list[str]:
    """The parts that were called and are exactly of one of these types or a subclass."""
    return [
        each.name for each in at.trace.places(lambda call: True) if isinstance(s.model.get_submodule(each.name), types)
    ]


@operator("swapped", "batch-mixing")
def batch_first_swapped(s: Setup, at: Site) -> str | None:
    """A recurrent or attention layer takes the batch for time: batch_first is the other way."""
    names = of_type(s, at, nn.RNNBase, nn.MultiheadAttention)
    if not names:
        return None
    name = at.choose.choice(names)
    layer: Any = s.model.get_submodule(name)
    layer.batch_first = not layer.batch_first
    return f"{name}: batch_first={layer.batch_first}"


@operator("axis", "batch-mixing")
def softmax_over_batch(s: Setup, at: Site) -> str | None:
    """The weights of an attention are normalised over the samples."""
    places = at.trace.mixed_softmaxes()
    if not places:
        return None
    name = at.choose.choice(places)

    def over_batch(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return x.softmax(0)

    exchange_in(s.model.get_submodule(name), SOFTMAX, over_batch, at=0)
    return f"{name}: softmax over dim 0"


@operator("axis", "batch-mixing")
def attention_over_batch(s: Setup, at: Site) -> str | None:
    """An attention looks from sample to sample: batch and time are swapped on its way in."""
    places = at.trace.mixed_attentions()
    if not places:
        return None
    name = at.choose.choice(places)

    def mixed(func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        q, k, v = (each.transpose(0, -2) for each in (query, key, value))
        return func(q, k, v, *args, **kwargs).transpose(0, -2)  # type: ignore[no-any-return]

    exchange_in(s.model.get_submodule(name), ATTENTION, mixed)
    return f"{name}: attention over dim 0"


@operator("axis", "batch-mixing")
def normalised_over_batch(s: Setup, at: Site) -> str | None:
    """A layer norm takes its mean and deviation over the batch."""
    names = at.trace.of_samples() & set(of_type(s, at, nn.LayerNorm))
    if (name := choose(at, at.trace.places(lambda call: call.name in names))) is None:
        return None

    def forward(inner: Forward, x: Tensor) -> Tensor:
        return inner((x - x.mean(0)) / (x.std(0, unbiased=False) + 1e-5))  # type: ignore[no-any-return]

    override(s.model.get_submodule(name), forward)
    return f"{name}: mean and std over dim 0"


@operator("axis", "constant-output", "batch-mixing", "input-ignored")
def mean_over_batch(s: Setup, at: Site) -> str | None:
    """A mean is taken over the batch in place of another axis: all samples go on with the same features."""
    names = at.trace.of_samples()
    places = at.trace.places(lambda call: call.graph and len(call.went or ()) == 2 and call.name in names)
    if (name := choose(at, places)) is None:
        return None
    on_output(s.model.get_submodule(name), lambda out: out.mean(0, keepdim=True).expand_as(out))
    return f"{name}: mean over dim 0"


@operator("axis", "leak", "input-ignored")
def heads_viewed(s: Setup, at: Site) -> str | None:
    """Queries, keys and values are reshaped into heads without a transpose: positions are mixed."""
    if not at.program.traits & {"causal", "padding"}:
        return None
    places = sorted(set(at.trace.transposes))
    if not places:
        return None
    name = at.choose.choice(places)

    def viewed(func: Any, x: Tensor, *dims: int) -> Tensor:
        if x.dim() != 4 or set(dims) != {1, 2}:
            return func(x, *dims)  # type: ignore[no-any-return]
        return x.reshape(x.shape[0], x.shape[2], x.shape[1], x.shape[3])

    exchange_in(s.model.get_submodule(name), (Tensor.transpose,), viewed)
    return f"{name}: reshape for transpose"


@operator("mode", "stochastic", "mode-gap", needs="dropout")
def dropout_always_on(s: Setup, at: Site) -> str | None:
    """F.dropout without training=self.training: it stays on in evaluation."""
    names = [n for n in of_type(s, at, nn.Dropout) if s.model.get_submodule(n).p > 0]  # type: ignore[operator]
    if not names or not at.trace.repeats:
        return None
    name = at.choose.choice(names)
    layer: Any = s.model.get_submodule(name)
    override(layer, lambda inner, x: F.dropout(x, layer.p))
    return f"{name}: F.dropout(x, {layer.p})"


def batch_norms(s: Setup, at: Site) -> list[str]:
    """Batch norms that are trained: a teacher's may do as it likes."""
    trained = {call.name for call in at.trace.places(lambda call: call.graph)}
    return [n for n in of_type(s, at, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) if n in trained]


@operator("mode", "batch-mixing", "mode-gap", needs="batchnorm")
def batch_statistics_always(s: Setup, at: Site) -> str | None:
    """A batch norm normalises by the batch in evaluation too."""
    names = batch_norms(s, at)
    if not names:
        return None
    name = at.choose.choice(names)
    layer: Any = s.model.get_submodule(name)
    layer.train()
    layer.__class__ = type(type(layer).__name__, (type(layer),), {"train": lambda self, mode=True: self})
    return f"{name}: stays in training mode"


@operator("mode", "mode-gap", needs="batchnorm")
def momentum_zero(s: Setup, at: Site) -> str | None:
    """The running statistics of a batch norm never follow: momentum 0."""
    names = batch_norms(s, at)
    if not names:
        return None
    name = at.choose.choice(names)
    layer: Any = s.model.get_submodule(name)
    layer.momentum = 0.0
    return f"{name}: momentum=0"


@operator("mode", "stochastic")
def noise_left_on(s: Setup, at: Site) -> str | None:
    """Noise is added to features in every call, in evaluation too."""
    places = at.trace.places(lambda call: call.graph and call.below > 0)
    if not at.trace.repeats or (name := choose(at, places)) is None:
        return None
    on_output(s.model.get_submodule(name), lambda out: out + 0.5 * out.detach().std() * torch.randn_like(out))
    return f"{name}: noise"


def _sequence(at: Site) -> str | None:
    """A part whose output has an axis between batch and channels that can be reordered."""
    places = at.trace.places(
        lambda call: (
            call.graph
            and call.went is not None
            and len(call.went) in (3, 4)
            and call.went[1 if len(call.went) == 3 else 2] > 2
        )
    )
    return choose(at, places)


@operator("order", "mode-gap")
def flipped_in_training(s: Setup, at: Site) -> str | None:
    """A sequence, or the rows of a map, are reversed in training and not in evaluation."""
    if (name := _sequence(at)) is None:
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        out = inner(*args, **kwargs)
        return out.flip(out.dim() - 2) if inner.args[0].training else out  # type: ignore[attr-defined]

    override(s.model.get_submodule(name), forward)
    return f"{name}: reversed in training"


@operator("order", "stochastic", "batch-changes")
def shuffled_in_every_call(s: Setup, at: Site) -> str | None:
    """A sequence, or the rows of a map, come in another order in every call."""
    if not at.trace.repeats or (name := _sequence(at)) is None:
        return None
    on_output(s.model.get_submodule(name), lambda out: out.index_select(out.dim() - 2, torch.randperm(out.shape[-2])))
    return f"{name}: a random order"


@operator("init", "zero-gradient", "symmetry", "constant-output", counts=BREAKING)
def all_zero(s: Setup, at: Site) -> str | None:
    """All weights start at zero."""
    for each in s.model.parameters():
        nn.init.zeros_(each)
    return "every parameter: 0"


@operator("init", "symmetry", "constant-output", counts=BREAKING)
def all_equal(s: Setup, at: Site) -> str | None:
    """All weights start at the same value, and all biases and gains at zero."""
    for each in s.model.parameters():
        nn.init.constant_(each, 0.02 if each.dim() > 1 else 0.0)
    return "every weight: 0.02"


@operator("init", "gradient-explosion", "saturation", "output-scale", counts=BREAKING)
def weights_huge(s: Setup, at: Site) -> str | None:
    """All weights start at a hundred times what they should be."""
    with torch.no_grad():
        for each in s.model.parameters():
            if each.dim() > 1:
                each.mul_(100)
    return "every weight: x 100"


@operator("init", "dead-units", "zero-gradient")
def bias_dead(s: Setup, at: Site) -> str | None:
    """The biases in front of an activation start far below zero: nothing fires."""
    calls = at.trace.modules
    pairs = [
        before.name
        for before, after in itertools.pairwise(calls)
        if after.name and isinstance(s.model.get_submodule(after.name), ACTIVATIONS) and before.went == after.came
        and isinstance(getattr(s.model.get_submodule(before.name), "bias", None), nn.Parameter)
    ]  # fmt: skip
    if not pairs:
        return None
    name = at.choose.choice(pairs)
    nn.init.constant_(s.model.get_submodule(name).bias, -100.0)  # type: ignore[arg-type]
    return f"{name}.bias: -100"


@operator("scale", "output-scale", "zero-gradient", counts=BREAKING)
def part_scaled_away(s: Setup, at: Site) -> str | None:
    """The output of a part is multiplied by a millionth."""
    places = at.trace.places(lambda call: call.graph and call.below > 0 and len(call.went or ()) > 1)
    if (name := choose(at, places)) is None:
        return None
    on_output(s.model.get_submodule(name), lambda out: out * 1e-6)
    return f"{name}: x 1e-6"
