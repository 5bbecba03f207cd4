"""Held-out mistakes of references and copies, the sixth set: memory, objects, caches and seeds in the wrong place.

From trackers: a state that is handed out without a clone (ai2cm/ace#1009), an optimizer that keeps the gradient itself
and not what it was (shivram1987/diffGrad#2), one normalisation layer for several places, with running statistics of
all of them (junyanz/pytorch-CycleGAN-and-pix2pix#1005), weights that share their numbers and not their updates
(BVLC/caffe#1211), a cache that knows a layer by its predecessor (keras-team/keras#1254) or is filled at the wrong call
(lucidrains/perceiver-pytorch#40), a layer that is built once and handed to all (habla-liaa/encodecmae#3), a dropout
that hides the same units in every step (pytorch/pytorch#189285).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.wild.operators.architecture import batch_norms
from benchmarks.wild.operators.loop import STEP
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.optimizers import trainable
from benchmarks.wild.operators.rewrite import Forward, override, parent_of, train_step
from benchmarks.wild.operators.sixth_starts import _alike
from benchmarks.wild.operators.unseen_layers import plain_layers

DECAY = 0.97  # of an average
SEED = 42


@operator("copy", "ema", "drift", "weights-reset", "weight-decay")
def average_shares_memory(s: Setup, at: Site) -> str | None:
    """A moving average starts as the weights themselves, without a clone: each update of it makes the model smaller."""

    @torch.no_grad()
    def follow(model: nn.Module, batch: Any) -> None:
        for each in trainable(model):
            each.data.mul_(DECAY).add_(each, alpha=1 - DECAY)  # the average is each.data

    s.step = train_step(at.program.loss, after=follow)
    return f"{STEP}: shadow = p.data, shadow.mul_({DECAY}).add_(p, alpha={1 - DECAY:.2f})"


@operator("copy", "optimizer-state", "optimizer-hyperparameter", "lr-high")
def moment_is_the_gradient(s: Setup, at: Site) -> str | None:
    """``state["exp_avg"] = p.grad`` without a clone: the momentum is set to zero with the gradient, and is the next."""
    made = at.optimizer(trainable(s.model))
    if type(made) not in (torch.optim.Adam, torch.optim.AdamW) or any(each["amsgrad"] for each in made.param_groups):
        return None

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        value = at.program.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        for each in (each for group in optimizer.param_groups for each in group["params"]):
            if each.grad is not None and not each.grad.is_sparse and not optimizer.state[each]:
                zero = torch.zeros_like(each, memory_format=torch.preserve_format)
                optimizer.state[each].update(step=torch.tensor(0.0), exp_avg=each.grad, exp_avg_sq=zero)
        optimizer.step()
        return value.detach()

    s.step = step
    return f"{STEP}: Adam with state['exp_avg'] = p.grad"


@operator("copy", "mode-gap", "drift", needs="batchnorm")
def norm_shared_by_two_places(s: Setup, at: Site) -> str | None:
    """One batch norm is built and used at two places: its running statistics are those of neither."""
    names = [name for name in batch_norms(s, at) if s.model.get_submodule(name).track_running_stats]
    layers: dict[str, Any] = {name: s.model.get_submodule(name) for name in names}
    pairs = [
        (first, second)
        for number, first in enumerate(names)
        for second in names[number + 1 :]
        if type(layers[first]) is type(layers[second]) and layers[first].num_features == layers[second].num_features
    ]
    if not pairs:
        return None
    first, second = at.choose.choice(pairs)
    parent, last = parent_of(s.model, second)
    setattr(parent, last, layers[first])
    return f"{second} is {first}"


@operator("copy", "drift", "wrong-backward", "symmetry", "capacity")
def weights_share_memory(s: Setup, at: Site) -> str | None:
    """``b.weight.data = a.weight.data`` to begin alike: one memory for both, and each update of one moves the other."""
    weights = [(name, s.model.get_parameter(f"{name}.weight")) for name in plain_layers(s, at)]
    weights = [(name, each) for name, each in weights if each.requires_grad]
    pairs = [
        (one, other)
        for number, one in enumerate(weights)
        for other in weights[number + 1 :]
        if one[1].shape == other[1].shape
    ]
    if not pairs:
        return None
    (first, kept), (second, given) = at.choose.choice(pairs)
    given.data = kept.data
    return f"{second}.weight.data = {first}.weight.data"


@operator("place", "unused", "no-gradient", "zero-gradient")
def cache_shared_by_layers(s: Setup, at: Site) -> str | None:
    """What a part of a layer returns is cached on the class: the same part of all later layers is never asked."""
    plain = plain_layers(s, at)
    found = []
    for first, *others in _alike(s, at):
        for name in (each for each in plain if each.startswith(f"{first}.")):
            last = name.removeprefix(first)
            if all(f"{other}{last}" in plain for other in others):
                found.append((name, [f"{other}{last}" for other in others]))
    if not found:
        return None
    name, later = at.choose.choice(found)
    begin = s.model.get_submodule(name)

    def keep(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        part: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        part.__dict__["kept"] = inner(*args, **kwargs)
        return part.__dict__["kept"]

    def cached(inner: Forward, x: Tensor) -> Any:
        part: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        held = part.__dict__["begin"].__dict__
        kept = held.get("kept")
        if part.__dict__["last"]:
            held["kept"] = None
        return inner(x) if kept is None or kept.shape[:-1] != x.shape[:-1] else kept

    override(begin, keep)
    for each in later:
        part = s.model.get_submodule(each)
        part.__dict__.update(begin=begin, last=each == later[-1])
        override(part, cached)
    return f"{name} answers for {later[-1]} too"


@operator("place", "zero-gradient", "no-gradient", "dead-units", "mode-gap", needs="dropout")
def seeded_in_forward(s: Setup, at: Site) -> str | None:
    """The seed is set in forward, not before the training: each step drops the same units, which never learn."""
    if not any(isinstance(each, nn.Dropout) and each.p > 0 for each in s.model.modules()):
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        torch.manual_seed(SEED)
        return inner(*args, **kwargs)

    override(s.model, forward)
    return f"the model: torch.manual_seed({SEED}) in forward"
