"""Held-out mistakes of a train step and of its optimizer, the second set.

From trackers and forums: micro-batches whose losses are divided twice or not at all (huggingface/transformers#34191),
zero_grad inside of the loop over them, gradients that are clipped before the scaler unscales them, local networks that
are never synchronised with the shared one, an average with a decay of 0.9999 that a short run evaluates, the rate and
the momentum of SGD in the wrong order, rates that fall from layer to layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.wild.operators.held_back import _chunk, _divisible
from benchmarks.wild.operators.loop import STEP
from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.optimizers import split_parameters, trainable
from benchmarks.wild.operators.rewrite import train_step

SCALE = 65536.0  # what a scaler begins with


def chunks(s: Setup, at: Site) -> list[slice] | None:
    """Micro-batches of equal size, two to four; None where the samples have no loss of their own."""
    rows = at.trace.rows
    count = next((count for count in (4, 3, 2) if rows and rows % count == 0), 0)
    if not count or not _divisible(s, at):
        return None
    return [slice(rows // count * number, rows // count * (number + 1)) for number in range(count)]


def _accumulated(s: Setup, at: Site, parts: list[slice], share: float, *, zeroed: bool = False) -> None:
    """A step that goes through micro-batches, and reports the mean of their losses.

    Args:
        share: what each loss is multiplied by before its backward pass; one over their number is right.
        zeroed: gradients are set to zero for each of them.
    """
    inner = s.loss

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        values = []
        for part in parts:
            if zeroed:
                optimizer.zero_grad()
            value = inner(model, _chunk(batch, at.trace.inputs, part, part))
            (value * share).backward()  # type: ignore[no-untyped-call]
            values.append(value.detach())
        optimizer.step()
        return torch.stack(values).mean()

    s.step = step


@operator("count", "grad-accumulation", "wrong-backward", "loss-scale")
def accumulated_without_division(s: Setup, at: Site) -> str | None:
    """The gradients of micro-batches add up, and nobody divides by their number."""
    if (parts := chunks(s, at)) is None:
        return None
    _accumulated(s, at, parts, 1.0)
    return f"{STEP}: loss.backward() for loss / {len(parts)}"


@operator("doubled", "wrong-backward", "loss-scale", "grad-accumulation")
def divided_by_accumulation_twice(s: Setup, at: Site) -> str | None:
    """The losses of micro-batches are divided by their number in the loss function and in the loop once more."""
    if (parts := chunks(s, at)) is None:
        return None
    _accumulated(s, at, parts, 1 / len(parts) ** 2)
    return f"{STEP}: loss / {len(parts)} twice"


@operator("misplaced", "grad-accumulation", "step-order", "wrong-backward", "unsupervised")
def zero_grad_in_accumulation(s: Setup, at: Site) -> str | None:
    """Gradients are set to zero before every micro-batch in place of every update: the last one alone counts."""
    if (parts := chunks(s, at)) is None:
        return None
    _accumulated(s, at, parts, 1 / len(parts), zeroed=True)
    return f"{STEP}: zero_grad() in the loop over {len(parts)} micro-batches"


def zeroing(loss: Callable[[nn.Module, Any], Tensor], zero: Callable[[nn.Module, Optimizer], None]) -> Any:
    """The usual step, in which gradients are set to zero in another way."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        zero(model, optimizer)
        value = loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value.detach()

    return step


@operator("forgotten", "grad-accumulation", "step-order")
def zero_grad_of_part_forgotten(s: Setup, at: Site) -> str | None:
    """One part's zero_grad() is called in place of the model's: the gradients of all others add up."""
    if (split := split_parameters(s, at)) is None:
        return None
    name = split[0]
    s.step = zeroing(at.program.loss, lambda model, optimizer: model.get_submodule(name).zero_grad())
    return f"{STEP}: model.{name}.zero_grad()"


@operator("count", "grad-accumulation", "step-order")
def zero_grad_every_tenth(s: Setup, at: Site) -> str | None:
    """Gradients are set to zero in every tenth step, as to accumulate, and the optimizer steps in each."""
    count = [0]

    def zero(model: nn.Module, optimizer: Optimizer) -> None:
        if count[0] % 10 == 0:
            optimizer.zero_grad()
        count[0] += 1

    s.step = zeroing(at.program.loss, zero)
    return f"{STEP}: zero_grad() in every tenth"


@operator("count", "lr-schedule", "lr-low", counts=BREAKING)
def schedule_rebuilt_in_step(s: Setup, at: Site) -> str | None:
    """The scheduler is built in every step: its warm-up of a thousand steps is always at the second one."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda count: min(1.0, count / 1000))
        optimizer.zero_grad()
        value = at.program.loss(model, batch)
        schedule.step()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value.detach()

    s.step = step
    return f"{STEP}: the scheduler is built in it"


def _gradients(optimizer: Optimizer) -> Iterable[Tensor]:
    return (each.grad for group in optimizer.param_groups for each in group["params"] if each.grad is not None)


@operator("misplaced", "grad-clip", "wrong-backward", "loss-scale", "lr-low")
def clip_before_unscale(s: Setup, at: Site) -> str | None:
    """Gradients are clipped to 1 before the scaler takes its 65536 out of them: a millionth is left."""

    def update(optimizer: Optimizer) -> None:
        torch.nn.utils.clip_grads_with_norm_(
            _holders(optimizer), 1.0, torch.nn.utils.get_total_norm(list(_gradients(optimizer)))
        )
        for each in _gradients(optimizer):
            each.div_(SCALE)
        optimizer.step()

    s.step = train_step(at.program.loss, backward=lambda value: (value * SCALE).backward(), update=update)  # type: ignore[no-untyped-call]
    return f"{STEP}: clip_grad_norm_() before scaler.unscale_()"


def _holders(optimizer: Optimizer) -> list[Tensor]:
    return [each for group in optimizer.param_groups for each in group["params"] if each.grad is not None]


@operator("misplaced", "weights-reset", "drift", "weight-decay")
def critic_clipping_on_model(s: Setup, at: Site) -> str | None:
    """The clamp of a critic's weights to 0.01 is applied to the model that is trained."""

    @torch.no_grad()
    def clamp(model: nn.Module, batch: Any) -> None:
        for each in trainable(model):
            each.clamp_(-0.01, 0.01) if not each.is_complex() else None

    s.step = train_step(at.program.loss, after=clamp)
    return f"{STEP}: p.clamp_(-0.01, 0.01)"


@operator("doubled", "step-order", "lr-group", "lr-high")
def held_by_two_optimizers(s: Setup, at: Site) -> str | None:
    """A part is in two optimizers, as of a generator and of a critic, and both step."""
    if (split := split_parameters(s, at)) is None:
        return None
    name, inside, _ = split
    second = at.optimizer(inside)

    def update(optimizer: Optimizer) -> None:
        optimizer.step()
        second.step()

    s.step = train_step(at.program.loss, update=update)
    return f"{STEP}: {name} is in two optimizers"


@operator("dtype", "precision", "wrong-backward", "zero-gradient")
def gradients_underflow_in_half(s: Setup, at: Site) -> str | None:
    """The loss is divided by the scale in place of multiplied: in float16 most of its gradients are zero."""

    def update(optimizer: Optimizer) -> None:
        for each in _gradients(optimizer):
            if not each.is_complex():
                each.copy_(each.half().to(each.dtype).mul_(SCALE))
        optimizer.step()

    s.step = train_step(at.program.loss, backward=lambda value: (value / SCALE).backward(), update=update)  # type: ignore[no-untyped-call]
    return f"{STEP}: float16 gradients of loss / 65536"


@operator("dtype", "precision", "drift", "weights-reset", "no-update")
def weights_rounded_after_step(s: Setup, at: Site) -> str | None:
    """Weights are kept in float8 between the steps, without a copy in full precision: updates are rounded away."""

    @torch.no_grad()
    def rounded(model: nn.Module, batch: Any) -> None:
        for each in trainable(model):
            if each.dtype == torch.float32:
                each.copy_(each.to(torch.float8_e4m3fn).to(each.dtype))

    s.step = train_step(at.program.loss, after=rounded)
    return f"{STEP}: weights through float8"


@operator("copy", "wrong-model", "wrong-backward", "no-gradient")
def copy_never_synchronised(s: Setup, at: Site) -> str | None:
    """Gradients come from a local copy of the model, and go into the shared one, which the copy never follows."""
    local = copy.deepcopy(s.model)

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        local.zero_grad()
        value = at.program.loss(local, batch)
        value.backward()  # type: ignore[no-untyped-call]
        for shared, own in zip(model.parameters(), local.parameters(), strict=True):
            shared.grad = own.grad
        optimizer.step()
        return value.detach()

    s.step = step
    return f"{STEP}: gradients of a copy that stays as it was"


@operator("copy", "ema", "mode-gap", "wrong-model")
def evaluated_by_slow_average(s: Setup, at: Site) -> str | None:
    """Evaluation swaps in a moving average with a decay of 0.9999: in a short run that is the start."""
    average = [each.detach().clone() for each in trainable(s.model)]
    base = type(s.model)

    @torch.no_grad()
    def follow(model: nn.Module, batch: Any) -> None:
        for mean, each in zip(average, trainable(model), strict=True):
            mean.mul_(0.9999).add_(each, alpha=0.0001)

    @torch.no_grad()
    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        if mode != self.training:
            for mean, each in zip(average, trainable(self), strict=True):
                kept = each.detach().clone()
                each.copy_(mean)
                mean.copy_(kept)
        return base.train(self, mode)

    s.model.__class__ = type(base.__name__, (base,), {"train": train, "__module__": base.__module__})
    s.step = train_step(at.program.loss, after=follow)
    return "the model: an average of 0.9999 in evaluation"


@operator("optimizer", "lr-high", "optimizer-hyperparameter", "gradient-explosion", counts=BREAKING)
def rate_and_momentum_swapped(s: Setup, at: Site) -> str | None:
    """The arguments of SGD are in the wrong order: 0.9 is the learning rate, and the rate is the momentum."""
    s.optimizer = torch.optim.SGD(trainable(s.model), 0.9, at.program.lr)
    return f"the optimizer: SGD(lr=0.9, momentum={at.program.lr:g})"


@operator("optimizer", "lr-group", "lr-low", "no-update")
def layer_decay_compounded(s: Setup, at: Site) -> str | None:
    """The rate falls by a factor of ten from each parameter to the one before, as if they were few layers."""
    parameters = trainable(s.model)
    if len(parameters) < 6:
        return None
    last = len(parameters) - 1
    groups = [{"params": [p], "lr": at.program.lr * 0.1 ** (last - number)} for number, p in enumerate(parameters)]
    s.optimizer = at.optimizer(groups)
    return "the optimizer: lr * 0.1 ** depth"


@operator("optimizer", "lr-low", "optimizer-hyperparameter", counts=BREAKING)
def sgd_at_rate_of_adam(s: Setup, at: Site) -> str | None:
    """Plain SGD has the learning rate that suits Adam."""
    if not isinstance(at.optimizer(trainable(s.model)), torch.optim.Adam):
        return None
    s.optimizer = torch.optim.SGD(trainable(s.model), at.program.lr)
    return f"the optimizer: SGD(lr={at.program.lr:g}) for Adam"
