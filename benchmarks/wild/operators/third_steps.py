"""Held-out mistakes of a train step, of its optimizer and of copies of the model, the third set.

From trackers and forums: an optimizer that steps inside of the loop over micro-batches, ``next(it)`` twice in a loop,
a scaler by hand that skips steps and keeps its scale, gradients that are unscaled by hand and by the scaler, weights
that are moved for sharpness-aware minimisation and not moved back, ``count // warmup``, moments in float16, averages
without the buffers (saltoricristiano/cosmix-uda#21, FlyreelAI/sesemi#36), a trust ratio of zero for what starts at
zero, a model that was traced before it was trained.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.wild.operators.architecture import batch_norms
from benchmarks.wild.operators.held_back import _chunk
from benchmarks.wild.operators.loop import STEP, _scheduled
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.optimizers import trainable
from benchmarks.wild.operators.rewrite import Forward, override, train_step
from benchmarks.wild.operators.unseen_layers import plain_layers
from benchmarks.wild.operators.unseen_steps import SCALE, _gradients, chunks


@operator("misplaced", "step-order", "grad-accumulation", "wrong-backward")
def stepped_after_every_part(s: Setup, at: Site) -> str | None:
    """The optimizer steps inside of the loop over micro-batches: the first ones' gradients are applied again."""
    if (parts := chunks(s, at)) is None:
        return None
    inner = s.loss

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        values = []
        for part in parts:
            value = inner(model, _chunk(batch, at.trace.inputs, part, part))
            (value / len(parts)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            values.append(value.detach())
        return torch.stack(values).mean()

    s.step = step
    return f"{STEP}: optimizer.step() in the loop over {len(parts)} micro-batches"


@operator("count", "unsupervised", "term-missing", "wrong-backward")
def iterator_advanced_twice(s: Setup, at: Site) -> str | None:
    """A loop over micro-batches calls next() once more for each: every second one is thrown away."""
    if (parts := chunks(s, at)) is None:
        return None
    inner, taken = s.loss, parts[::2]

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        values = [inner(model, _chunk(batch, at.trace.inputs, part, part)) for part in taken]
        mean = torch.stack(values).mean()
        mean.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return mean.detach()

    s.step = step
    return f"{STEP}: every second of {len(parts)} micro-batches"


@operator("forgotten", "no-step", "no-update", "nonfinite-gradient", "precision")
def overflowing_scale_never_lowered(s: Setup, at: Site) -> str | None:
    """A scaler by hand skips steps whose gradients overflow in float16, and never lowers its scale: it skips all."""

    def update(optimizer: Optimizer) -> None:
        for each in _gradients(optimizer):
            if not each.is_complex():
                each.copy_(each.half().to(each.dtype) / 2.0**40)
        if all(bool(each.isfinite().all()) for each in _gradients(optimizer)):
            optimizer.step()

    s.step = train_step(at.program.loss, backward=lambda value: (value * 2.0**40).backward(), update=update)  # type: ignore[no-untyped-call]
    return f"{STEP}: a scale of 2 ** 40 without scaler.update()"


@operator("doubled", "wrong-backward", "loss-scale", "lr-low", "zero-gradient")
def unscaled_twice(s: Setup, at: Site) -> str | None:
    """Gradients are divided by the scale by hand, for their norm, and by the scaler's step once more."""

    def update(optimizer: Optimizer) -> None:
        for each in _gradients(optimizer):
            each.div_(SCALE).div_(SCALE)
        optimizer.step()

    s.step = train_step(at.program.loss, backward=lambda value: (value * SCALE).backward(), update=update)  # type: ignore[no-untyped-call]
    return f"{STEP}: unscale_() twice"


@operator("forgotten", "drift", "weights-reset", "step-order")
def climb_not_taken_back(s: Setup, at: Site) -> str | None:
    """Sharpness-aware minimisation climbs to a neighbour of the weights, and nobody goes back before the step."""

    @torch.no_grad()
    def climb(model: nn.Module) -> None:
        found = [each for each in trainable(model) if each.grad is not None]
        length = torch.stack([each.grad.abs().square().sum() for each in found]).sum().sqrt()  # type: ignore[union-attr]
        for each in found:
            each.add_(each.grad, alpha=0.05 / (float(length) + 1e-12))  # type: ignore[arg-type]

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        at.program.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        climb(model)
        optimizer.zero_grad()
        value = at.program.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value.detach()

    s.step = step
    return f"{STEP}: p.add_(e) without p.sub_(e)"


@operator("mask", "zero-gradient", "wrong-backward", "no-update", "frozen")
def gradient_mask_inverted(s: Setup, at: Site) -> str | None:
    """A mask is to keep one row of a weight as it is, and keeps all others: their gradients are zero."""
    names = plain_layers(s, at)
    if not names:
        return None
    name = at.choose.choice(names)

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        value = at.program.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        gradient: Any = model.get_submodule(name).weight.grad
        if gradient is not None:
            gradient[1:] = 0
        optimizer.step()
        return value.detach()

    s.step = step
    return f"{STEP}: {name}.weight.grad[1:] = 0 for [0]"


@operator("dtype", "lr-schedule", "no-update", "lr-low", "few-steps")
def warm_up_in_whole_numbers(s: Setup, at: Site) -> str | None:
    """A warm-up divides by ``//``: the learning rate is 0 until it is over."""
    length = max(4, at.program.steps // 4)
    _scheduled(s, at, lambda count: float(min(1, count // length)))
    return f"{STEP}: lr * (count // {length})"


@operator("dtype", "precision", "optimizer-state", "gradient-explosion")
def second_moment_underflows(s: Setup, at: Site) -> str | None:
    """Adam's moments are kept in float16, where the square of a small gradient is zero."""
    if type(at.optimizer(trainable(s.model))) is not torch.optim.Adam:
        return None

    def update(optimizer: Optimizer) -> None:
        optimizer.step()
        for state in optimizer.state.values():
            if not state["exp_avg_sq"].is_complex():
                state["exp_avg_sq"].copy_(state["exp_avg_sq"].half())

    s.step = train_step(at.program.loss, update=update)
    return "the optimizer: exp_avg_sq in float16"


@operator("copy", "ema", "mode-gap", needs="batchnorm")
def average_without_buffers(s: Setup, at: Site) -> str | None:
    """Evaluation swaps in an average of the parameters, whose running statistics stay those of the start."""
    if not batch_norms(s, at):
        return None
    average = [each.detach().clone() for each in trainable(s.model)]
    start = {name: each.detach().clone() for name, each in s.model.named_buffers()}
    base = type(s.model)

    @torch.no_grad()
    def follow(model: nn.Module, batch: Any) -> None:
        for mean, each in zip(average, trainable(model), strict=True):
            mean.lerp_(each, 0.5)

    @torch.no_grad()
    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        if mode != self.training:
            pairs: list[tuple[Tensor, Tensor]] = list(zip(average, trainable(self), strict=True))
            pairs += [(start[name], each) for name, each in self.named_buffers() if name in start]
            for kept, each in pairs:
                own = each.detach().clone()
                each.copy_(kept)
                kept.copy_(own)
        return base.train(self, mode)

    s.model.__class__ = type(base.__name__, (base,), {"train": train, "__module__": base.__module__})
    s.step = train_step(at.program.loss, after=follow)
    return "the model: in evaluation the average of its parameters, without its buffers"


@operator("copy", "mode-gap", "wrong-model")
def traced_before_training(s: Setup, at: Site) -> str | None:
    """Evaluation calls a copy that was made, traced or exported before the training."""
    old = copy.deepcopy(s.model).eval()

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        model: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        return inner(*args, **kwargs) if model.training else old(*args, **kwargs)

    override(s.model, forward)
    return "the model: a copy of the start in evaluation"


@operator("optimizer", "lr-group", "no-update", "optimizer-coverage")
def no_decay_group_without_rate(s: Setup, at: Site) -> str | None:
    """The group of biases and gains, which is to have no decay, gets ``lr=0.0`` for ``weight_decay=0.0``."""
    parameters = trainable(s.model)
    matrices, vectors = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() < 2]
    if not matrices or not vectors:
        return None
    s.optimizer = at.optimizer([{"params": matrices}, {"params": vectors, "lr": 0.0}])
    return f"the optimizer: lr=0 for {len(vectors)} biases and gains"


@operator("optimizer", "no-update", "lr-group", "optimizer-hyperparameter")
def trust_ratio_of_zero(s: Setup, at: Site) -> str | None:
    """Updates are in proportion to a parameter's own size: what starts at zero stays there."""
    if all(bool(each.any()) for each in trainable(s.model)):
        return None

    def update(optimizer: Optimizer) -> None:
        held = [each for group in optimizer.param_groups for each in group["params"]]
        before = [each.detach().clone() for each in held]
        optimizer.step()
        with torch.no_grad():
            for each, old in zip(held, before, strict=True):
                moved, size = each - old, old.norm()
                each.copy_(old + moved * (size / (size + 0.1 * moved.norm() + 1e-12)))

    s.step = train_step(at.program.loss, update=update)
    return f"{STEP}: lr * |p| / |update|, with parameters of zeros"


@operator("scale", "weight-decay", "drift", "weights-reset")
def decayed_without_rate(s: Setup, at: Site) -> str | None:
    """A weight decay by hand multiplies the weights by 0.97 in every step, where it forgets the learning rate."""

    @torch.no_grad()
    def decay(model: nn.Module, batch: Any) -> None:
        for each in trainable(model):
            each.mul_(0.97)

    s.step = train_step(at.program.loss, after=decay)
    return f"{STEP}: p.mul_(1 - decay) for p.mul_(1 - lr * decay)"
