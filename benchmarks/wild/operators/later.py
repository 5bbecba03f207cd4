"""Mistakes that were written after the others: held out, of ten kinds (the one of masks: masks.py)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree

from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.rewrite import Forward, exchange_loss, on_output, override, stepping, train_step
from benchmarks.wild.operators.targets import told_tokens
from benchmarks.wild.operators.trace import leaves


@operator("count", "no-step", "lr-schedule", counts=BREAKING)
def steps_only_at_first(s: Setup, at: Site) -> str | None:
    """The optimizer steps in the first five batches alone, as under ``if epoch == 0``."""
    s.step = train_step(at.program.loss, update=stepping(lambda count: count <= 5))
    return "the train step: optimizer.step() in the first 5 steps"


@operator("swapped", "wrong-backward", "loss-sign")
def gradient_reversed(s: Setup, at: Site) -> str | None:
    """A gradient reversal stands where no adversary is: what is before it climbs."""
    places = at.trace.places(lambda call: call.graph and call.below > 0)
    if not places:
        return None
    name = at.choose.choice(places).name
    on_output(s.model.get_submodule(name), lambda out: 2 * out.detach() - out)
    return f"{name}: its gradient is reversed"


@operator("optimizer", "optimizer-hyperparameter")
def betas_swapped(s: Setup, at: Site) -> str | None:
    """Adam's betas are given in the wrong order."""
    parameters = [each for each in s.model.parameters() if each.requires_grad]
    if type(at.optimizer(parameters)) is not torch.optim.Adam:
        return None
    s.optimizer = torch.optim.Adam(parameters, at.program.lr, betas=(0.999, 0.9))
    return "the optimizer: betas=(0.999, 0.9)"


@operator("dtype", "precision", counts=BREAKING)
def weights_in_bfloat16(s: Setup, at: Site) -> str | None:
    """Model and inputs are bfloat16, without weights of full precision: small updates are rounded away."""
    s.model.bfloat16()

    def to(dtype: torch.dtype, nest: Any) -> Any:
        return _pytree.tree_map(lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x, nest)

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        return to(torch.float32, inner(*to(torch.bfloat16, args), **to(torch.bfloat16, kwargs)))

    override(s.model, forward)
    return "model.bfloat16()"


@operator("misplaced", "stochastic", "mode-gap")
def dropout_on_output(s: Setup, at: Site) -> str | None:
    """A dropout stands behind the last layer: what the loss reads is zero half of the time."""
    if at.program.given.get("stochastic") or not at.trace.repeats:
        return None
    shapes = [call.output for call in at.trace.losses if call.grad]
    places = at.trace.places(lambda call: call.graph and call.below > 0 and call.went in shapes)
    if not places:
        return None
    layer = s.model.get_submodule(places[-1].name)
    on_output(layer, lambda out: F.dropout(out, 0.5, layer.training))
    return f"{places[-1].name}: dropout behind it"


@operator("place", "optimizer-coverage", "no-update", "unregistered")
def parameter_rewrapped(s: Setup, at: Site) -> str | None:
    """A layer makes a new parameter of its weight in every call; the optimizer holds the first one."""
    places = at.trace.places(lambda call: call.module in ("Linear", "Conv2d", "Conv1d") and call.own > 0)
    if not places:
        return None
    name = at.choose.choice(places).name

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        layer: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        layer.weight = nn.Parameter(layer.weight.detach().clone())  # type: ignore[operator]
        return inner(*args, **kwargs)

    override(s.model.get_submodule(name), forward)
    return f"{name}.weight: nn.Parameter(...) in forward"


@operator("order", "target-mismatch", "batch-mixing")
def outputs_reversed(s: Setup, at: Site) -> str | None:
    """The outputs come back in the reverse order of the samples: each is compared with another one's target."""
    for number, call in enumerate(at.trace.losses):
        count = call.output[0] if call.output else 0
        told = call.target.dim() > 0 and call.target.shape[0] == count == at.trace.rows
        if call.grad and count > 1 and told and not torch.equal(call.target, call.target.flip(0)):
            exchange_loss(s, number, lambda func, out, target, **rest: func(out.flip(0), target, **rest))
            return "the loss: outputs.flip(0)"
    return None


@operator("rows", "input-ignored", "constant-output", "degenerate-batch", "label-conflict")
def inputs_of_first_for_all(s: Setup, at: Site) -> str | None:
    """The model gets the first sample's input in place of every sample's."""
    rows = at.trace.rows
    found = [each for path, each in leaves(s.batch) if path in at.trace.inputs and each.dim() and len(each) == rows > 1]
    if not found:
        return None
    shapes = {tuple(each.shape) for each in found}

    def first(each: Any) -> Any:
        is_input = isinstance(each, Tensor) and tuple(each.shape) in shapes and not each.requires_grad
        return each[:1].expand_as(each) if is_input else each

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        return inner(*(first(each) for each in args), **{name: first(each) for name, each in kwargs.items()})

    override(s.model, forward)
    return "the model's input: x[:1].expand_as(x)"


@operator("scale", "output-scale", counts=BREAKING)
def logits_cooled(s: Setup, at: Site) -> str | None:
    """The logits are divided by a temperature of ten thousand."""
    for number, call in enumerate(at.trace.losses):
        if call.grad and call.function == "cross_entropy":
            exchange_loss(s, number, lambda func, out, target, **rest: func(out / 1e4, target, **rest))
            return "the loss: logits / 10000"
    return None


@operator("axis", "leak", needs="causal")
def normalised_over_time(s: Setup, at: Site) -> str | None:
    """A layer norm of a causal model takes its mean and deviation over all moments, those to come among them."""
    norms = [name for name, module in s.model.named_modules() if isinstance(module, nn.LayerNorm)]
    places = at.trace.places(lambda call: call.name in norms and call.came is not None and len(call.came) == 3)
    if told_tokens(at) is None or not places:
        return None
    name = at.choose.choice(places).name

    def forward(inner: Forward, x: Tensor) -> Tensor:
        return inner((x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5))  # type: ignore[no-any-return]

    override(s.model.get_submodule(name), forward)
    return f"{name}: mean and std over dim 1"
