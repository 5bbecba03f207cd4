"""Held-out mistakes inside of layers, the third set: own backward passes, adapters, recurrent states, norms.

From trackers and forums: a backward pass that leaves out a constant (zergtant/pytorch-handbook#69) or what comes from
behind (k2-fsa/k2#341, SeanNaren/warp-ctc#170), ``torch.where`` around a root, whose gradient is NaN, ``.data`` on the
way forward, ``torch.normal`` for a reparameterised sample, a recurrent state that nobody resets, adapters that are
merged in every call (huggingface/peft#1355) or start at zero on both sides, a layer that is copied in forward, norms in
bfloat16, a running mean and a running variance that change places.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils import _pytree

from benchmarks.wild.operators.architecture import batch_norms, choose, of_type
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Forward, on_output, override, train_step
from benchmarks.wild.operators.trace import ACTIVATIONS, ModuleCall
from benchmarks.wild.operators.unseen_layers import NORMS, plain_layers
from benchmarks.wild.operators.unseen_steps import _gradients

RANK = 4  # of an adapter


def _parts(at: Site) -> list[ModuleCall]:
    """The parts with parameters whose output is a tensor with a graph behind it."""
    return at.trace.places(lambda call: call.graph and call.below > 0)


class _Scaled(Function):
    """A product with a constant, whose backward pass forgets it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 0.25

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Local(Function):
    """An activation, whose backward pass forgets what comes from behind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Any) -> Tensor:
        with torch.enable_grad():
            given = x.detach().requires_grad_()
            out: Tensor = function(given * 1)
            ctx.save_for_backward(torch.autograd.grad(out.sum(), given)[0])
        return out.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.saved_tensors[0], None


@operator("forgotten", "wrong-backward")
def constant_left_out_of_backward(s: Setup, at: Site) -> str | None:
    """A function of its own multiplies by a constant, and its backward pass hands the gradient on as it is."""
    if (name := choose(at, _parts(at))) is None:
        return None
    on_output(s.model.get_submodule(name), lambda out: _Scaled.apply(out))  # type: ignore[no-untyped-call]
    return f"{name}: a backward() without the constant"


@operator("forgotten", "wrong-backward", "loss-sign")
def backward_ignores_incoming(s: Setup, at: Site) -> str | None:
    """An activation of its own returns its derivative in backward, not multiplied by the gradient that comes in."""
    names = {call.name for call in at.trace.places(lambda call: call.graph)}
    names &= set(of_type(s, at, *ACTIVATIONS, nn.Tanh, nn.Sigmoid))
    if (name := choose(at, at.trace.places(lambda call: call.name in names))) is None:
        return None
    override(s.model.get_submodule(name), lambda inner, x: _Local.apply(x, inner))  # type: ignore[no-untyped-call]
    return f"{name}: a backward() without grad_output"


@operator("place", "wrong-backward", "dead-units")
def rectified_through_data(s: Setup, at: Site) -> str | None:
    """Features are rectified through ``.data``: the backward pass knows nothing of it."""
    if (name := choose(at, _parts(at))) is None:
        return None

    def rectified(out: Tensor) -> Tensor:
        out = out.clone()
        if not out.is_complex():
            out.data.clamp_(min=0)
        return out

    on_output(s.model.get_submodule(name), rectified)
    return f"{name}: out.data.clamp_(min=0)"


@operator("place", "nonfinite-gradient", "zero-gradient", "no-update", "no-gradient")
def nan_gradients_zeroed(s: Setup, at: Site) -> str | None:
    """A root inside of ``torch.where`` has a gradient of NaN everywhere, and the step makes every NaN a zero."""
    if (name := choose(at, _parts(at))) is None:
        return None

    def rooted(out: Tensor) -> Tensor:
        return torch.where(out > 0, out.sqrt(), -(-out).sqrt())

    def update(optimizer: Optimizer) -> None:
        for each in _gradients(optimizer):
            each.nan_to_num_(0.0, 0.0, 0.0)
        optimizer.step()

    on_output(s.model.get_submodule(name), rooted)
    s.step = train_step(at.program.loss, update=update)
    return f"{name}: where(x > 0, x.sqrt(), ...), and nan_to_num_() of its gradients"


@operator("detached", "no-gradient", "zero-gradient")
def sampled_without_reparameterising(s: Setup, at: Site) -> str | None:
    """Features are the mean of a sample by ``torch.normal``, which hands no gradient on."""
    if not at.trace.repeats or (name := choose(at, _parts(at))) is None:
        return None
    part = s.model.get_submodule(name)
    on_output(part, lambda out: torch.normal(out, 0.01) if part.training else out)
    return f"{name}: torch.normal(mean, 0.01) for mean + 0.01 * noise"


def _rows_of(layer: Any, x: Any) -> int:
    """The number of samples that a recurrent layer reads, packed ones too."""
    return int(x.shape[0 if layer.batch_first else 1] if isinstance(x, Tensor) else x.batch_sizes[0])


@operator("forgotten", "stochastic", "drift", "batch-changes")
def state_carried_over(s: Setup, at: Site) -> str | None:
    """A recurrent layer begins with the state that it ended with in the call before: nobody resets it."""
    names = of_type(s, at, nn.RNN, nn.GRU, nn.LSTM)
    if not names or not at.trace.repeats:
        return None
    name = at.choose.choice(names)

    def forward(inner: Forward, x: Any, state: Any = None, **kwargs: Any) -> Any:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        kept = layer.__dict__.get("kept")
        if kept is not None and _pytree.tree_leaves(kept)[0].shape[-2] == _rows_of(layer, x):
            state = kept
        out, last = inner(x, state, **kwargs)
        layer.__dict__["kept"] = _pytree.tree_map(lambda each: each.detach(), last)
        return out, last

    override(s.model.get_submodule(name), forward)
    return f"{name}: the state of the call before"


@operator("copy", "no-gradient", "unused", "optimizer-coverage")
def part_copied_in_forward(s: Setup, at: Site) -> str | None:
    """Forward calls a deep copy of a part, new in every call: the gradients go to the copy."""
    if (name := choose(at, _parts(at))) is None:
        return None

    def forward(inner: Any, *args: Any, **kwargs: Any) -> Any:
        return inner.func(copy.deepcopy(inner.args[0]), *args, **kwargs)

    override(s.model.get_submodule(name), forward)
    return f"{name}: deepcopy(self.part)(x)"


def _adapted(s: Setup, at: Site, down: float) -> str | None:
    """A linear layer whose weight is frozen, as the user declares, beside an adapter of low rank."""
    names = [name for name in plain_layers(s, at) if isinstance(s.model.get_submodule(name), nn.Linear)]
    if not names:
        return None
    name = at.choose.choice(names)
    layer: Any = s.model.get_submodule(name)
    layer.weight.requires_grad_(False)
    layer.down = nn.Parameter(down * torch.randn(RANK, layer.in_features))
    layer.up = nn.Parameter(torch.zeros(layer.out_features, RANK))
    s.given["frozen"] = [*s.given.get("frozen", ()), f"{name}.weight"]
    return name


@operator("init", "zero-gradient", "symmetry", "no-update")
def adapter_zero_on_both_sides(s: Setup, at: Site) -> str | None:
    """Both matrices of an adapter start at zero: neither ever has a gradient."""
    if (name := _adapted(s, at, 0.0)) is None:
        return None

    def forward(inner: Forward, x: Tensor) -> Any:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        return inner(x) + F.linear(F.linear(x, layer.down), layer.up)

    override(s.model.get_submodule(name), forward)
    return f"{name}: an adapter of zeros"


@operator("doubled", "drift", "stochastic", "mode-gap", "not-frozen")
def adapter_merged_in_every_call(s: Setup, at: Site) -> str | None:
    """Every evaluation merges an adapter into the weight once more, and nobody takes it out again."""
    if (name := _adapted(s, at, 0.1)) is None:
        return None

    def forward(inner: Forward, x: Tensor) -> Any:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        if layer.training:
            return inner(x) + F.linear(F.linear(x, layer.down), layer.up)
        layer.weight.data += (layer.up @ layer.down).detach()
        return inner(x)

    override(s.model.get_submodule(name), forward)
    return f"{name}: weight += up @ down in every evaluation"


@operator("init", "zero-gradient", "constant-output")
def gains_start_at_zero(s: Setup, at: Site) -> str | None:
    """The gains of all norms start at zero, as the last ones of residual blocks may: nothing goes through."""
    weights: dict[str, Any] = {
        name: getattr(s.model.get_submodule(name), "weight", None) for name in of_type(s, at, *NORMS)
    }
    names = [name for name, weight in weights.items() if weight is not None and weight.requires_grad]
    for name in names:
        nn.init.zeros_(weights[name])
    return f"{names[0]} and others: weight = 0" if names else None


@operator("init", "symmetry", "input-ignored", "constant-output")
def embedding_rows_equal(s: Setup, at: Site) -> str | None:
    """All rows of an embedding start as the same one: at first the model cannot tell tokens apart."""
    names = [name for name in of_type(s, at, nn.Embedding) if len(s.model.get_submodule(name).weight) > 2]  # type: ignore[arg-type]
    if not names:
        return None
    weight: Any = s.model.get_submodule(names[0]).weight
    with torch.no_grad():
        weight.copy_(weight[-1:].clone().expand_as(weight))
    return f"{names[0]}.weight: one row for all"


@operator("dtype", "precision", "nonfinite-output")
def norms_in_bfloat16(s: Setup, at: Site) -> str | None:
    """Layer norms are written out in bfloat16, with the mean of squares minus the square of the mean."""
    names = [name for name in of_type(s, at, nn.LayerNorm) if len(s.model.get_submodule(name).normalized_shape) == 1]  # type: ignore[arg-type]

    def forward(inner: Forward, x: Tensor) -> Any:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        low = x.bfloat16()
        mean = low.mean(-1, keepdim=True)
        variance = (low * low).mean(-1, keepdim=True) - mean * mean
        out = ((low - mean) * (variance + layer.eps).rsqrt()).to(x.dtype)
        out = out if layer.weight is None else out * layer.weight
        return out if layer.bias is None else out + layer.bias

    for name in names:
        override(s.model.get_submodule(name), forward)
    return f"{names[0]} and others: in bfloat16" if names else None


@operator("swapped", "mode-gap", "output-scale", "nonfinite-output", needs="batchnorm")
def running_statistics_swapped(s: Setup, at: Site) -> str | None:
    """A batch norm of its own hands running mean and running variance over in the wrong order in evaluation."""
    layers: dict[str, Any] = {name: s.model.get_submodule(name) for name in batch_norms(s, at)}
    names = [name for name, layer in layers.items() if layer.running_var is not None]
    if not names:
        return None
    name = at.choose.choice(names)

    def forward(inner: Forward, x: Tensor) -> Any:
        layer: Any = inner.args[0]  # type: ignore[attr-defined]
        if layer.training:
            return inner(x)
        return F.batch_norm(x, layer.running_var, layer.running_mean, layer.weight, layer.bias, eps=layer.eps)

    override(layers[name], forward)
    return f"{name}: F.batch_norm(x, running_var, running_mean) in evaluation"


@operator("misplaced", "saturation", "zero-gradient", "output-scale")
def softmax_between_layers(s: Setup, at: Site) -> str | None:
    """A softmax stands between two layers, as if it were an activation: features add up to one."""
    shapes = [call.output for call in at.trace.losses]
    last = at.trace.modules[-1].went if at.trace.modules else None
    places = [call for call in _parts(at) if len(call.went or ()) in (2, 3) and call.went not in (*shapes, last)]
    if (name := choose(at, [call for call in places if (call.went or (0,))[-1] > 3])) is None:
        return None
    on_output(s.model.get_submodule(name), lambda out: out.softmax(-1))
    return f"{name}: softmax(-1)"


@operator("mode", "mode-gap")
def part_skipped_in_evaluation(s: Setup, at: Site) -> str | None:
    """A part is called ``if self.training``, where only the dropout behind it should be."""
    places = at.trace.places(lambda call: call.keeps_shape and call.graph and call.below > 0)
    if (name := choose(at, places)) is None:
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        part: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        if part.training:
            return inner(*args, **kwargs)
        return next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))

    override(s.model.get_submodule(name), forward)
    return f"{name}: not called in evaluation"
