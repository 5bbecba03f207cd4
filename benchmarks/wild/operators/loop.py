"""Mistakes in the train step: what is forgotten, done twice, in the wrong order, or with another model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.wild.operators.operator import BREAKING, Setup, Site, operator
from benchmarks.wild.operators.rewrite import stepping, train_step

STEP = "the train step"


@operator("forgotten", "grad-accumulation", "step-order")
def zero_grad_forgotten(s: Setup, at: Site) -> str | None:
    """Gradients are never set to zero."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        loss = at.program.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    s.step = step
    return f"{STEP}: no zero_grad()"


@operator("forgotten", "no-update", "no-gradient", "step-order")
def backward_forgotten(s: Setup, at: Site) -> str | None:
    """The loss is never differentiated."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = at.program.loss(model, batch)
        optimizer.step()
        return loss.detach()

    s.step = step
    return f"{STEP}: no backward()"


@operator("forgotten", "no-step", "no-update")
def step_forgotten(s: Setup, at: Site) -> str | None:
    """The optimizer is never stepped."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = at.program.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    s.step = step
    return f"{STEP}: no optimizer.step()"


@operator("doubled", "wrong-backward", "grad-accumulation", "loss-scale")
def backward_doubled(s: Setup, at: Site) -> str | None:
    """The loss is differentiated twice, so every gradient is twice what it should be."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = at.program.loss(model, batch)
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    s.step = step
    return f"{STEP}: backward() twice"


@operator("doubled", "step-order", "lr-high")
def step_doubled(s: Setup, at: Site) -> str | None:
    """The optimizer steps twice with one gradient."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = at.program.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.step()
        return loss.detach()

    s.step = step
    return f"{STEP}: optimizer.step() twice"


@operator("misplaced", "step-order", "no-update")
def zero_grad_after_backward(s: Setup, at: Site) -> str | None:
    """Gradients are set to zero between backward and step."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        loss = at.program.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        optimizer.step()
        return loss.detach()

    s.step = step
    return f"{STEP}: zero_grad() after backward()"


@operator("misplaced", "step-order", "no-update")
def step_before_backward(s: Setup, at: Site) -> str | None:
    """The optimizer steps before the loss is differentiated, with gradients that were just set to zero."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = at.program.loss(model, batch)
        optimizer.step()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    s.step = step
    return f"{STEP}: step() before backward()"


@operator("misplaced", "optimizer-state")
def optimizer_built_in_step(s: Setup, at: Site) -> str | None:
    """A new optimizer in every step: moments and momentum are lost."""

    def step(model: nn.Module, batch: Any) -> Tensor:
        optimizer = at.optimizer([each for each in model.parameters() if each.requires_grad])
        loss = at.program.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    s.step = step  # type: ignore[assignment]
    return f"{STEP}: the optimizer is built in it"


@operator("swapped", "wrong-backward", "loss-sign")
def sign_swapped(s: Setup, at: Site) -> str | None:
    """The negative of the reported loss is differentiated."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = at.program.loss(model, batch)
        (-loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    s.step = step
    return f"{STEP}: (-loss).backward()"


@operator("detached", "loss-detached", "no-gradient")
def loss_rewrapped(s: Setup, at: Site) -> str | None:
    """A new tensor is made of the loss's number, and differentiated."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return torch.tensor(at.program.loss(model, batch).item(), requires_grad=True)

    s.loss = loss
    return "the loss: torch.tensor(loss.item(), requires_grad=True)"


def _scheduled(s: Setup, at: Site, factor: Callable[[int], float]) -> None:
    """A step with a scheduler of its own, which is made at the first call."""
    made: list[torch.optim.lr_scheduler.LRScheduler] = []

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        if not made or made[0].optimizer is not optimizer:
            made[:] = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor)]
        optimizer.zero_grad()
        loss = at.program.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        made[0].step()
        return loss.detach()

    s.step = step


@operator("count", "lr-schedule", counts=BREAKING)
def schedule_ends_early(s: Setup, at: Site) -> str | None:
    """The learning rate falls to 0 within ten steps: the scheduler was told epochs and counts batches."""
    _scheduled(s, at, lambda count: max(0.0, 1 - count / 10))
    return f"{STEP}: the schedule ends after 10 steps"


@operator("count", "lr-schedule", "lr-low", counts=BREAKING)
def warm_up_too_long(s: Setup, at: Site) -> str | None:
    """The learning rate is warmed up for a thousand times as many steps as there are."""
    _scheduled(s, at, lambda count: (count + 1) / (1000 * at.program.steps))
    return f"{STEP}: a warm-up that is longer than the run"


@operator("count", "no-step", "no-update", "grad-accumulation")
def accumulation_never_steps(s: Setup, at: Site) -> str | None:
    """Gradients are accumulated over 1000 batches, and the count starts anew with every epoch of one batch."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        for number, each in enumerate([batch]):
            loss = at.program.loss(model, each)
            (loss / 1000).backward()  # type: ignore[no-untyped-call]
            if (number + 1) % 1000 == 0:
                optimizer.step()
                optimizer.zero_grad()
        return loss.detach()

    s.step = step
    return f"{STEP}: optimizer.step() every 1000 batches of 1"


@operator("count", "no-step", "grad-accumulation")
def steps_every_tenth(s: Setup, at: Site) -> str | None:
    """Gradients are set to zero in every step and applied in every tenth: nine of ten are thrown away."""
    s.step = train_step(at.program.loss, update=stepping(lambda count: count % 10 == 0))
    return f"{STEP}: optimizer.step() every tenth time"


@operator("copy", "wrong-model", "optimizer-coverage")
def copy_trained(s: Setup, at: Site) -> str | None:
    """A deep copy of the model is trained, and the model is evaluated."""
    copied = copy.deepcopy(s.model)
    optimizer = at.optimizer([each for each in copied.parameters() if each.requires_grad])

    def step(model: nn.Module, batch: Any) -> Tensor:
        optimizer.zero_grad()
        loss = at.program.loss(copied, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    s.step = step  # type: ignore[assignment]
    return f"{STEP}: deepcopy(model) is trained"


@operator("copy", "optimizer-coverage", "no-update")
def optimizer_over_copy(s: Setup, at: Site) -> str | None:
    """The optimizer holds the parameters of a deep copy, as after model = copy.deepcopy(model)."""
    s.optimizer = at.optimizer([each for each in copy.deepcopy(s.model).parameters() if each.requires_grad])
    return "the optimizer: parameters of a copy"


@operator("copy", "weights-reset", "ema")
def weights_reloaded(s: Setup, at: Site) -> str | None:
    """The weights of the start are loaded again in every step."""
    start = copy.deepcopy(s.model.state_dict())

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        model.load_state_dict(start)
        optimizer.zero_grad()
        loss = at.program.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    s.step = step
    return f"{STEP}: load_state_dict of the checkpoint in it"


@operator("copy", "ema", "weights-reset")
def average_copied_back(s: Setup, at: Site) -> str | None:
    """A moving average of the weights (0.999) is copied into the model that is trained."""
    average = {name: each.detach().clone() for name, each in s.model.named_parameters()}

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = at.program.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for name, each in model.named_parameters():
                average[name].lerp_(each, 0.001)
                each.copy_(average[name])
        return loss.detach()

    s.step = step
    return f"{STEP}: the average is written into the model"


@operator("mode", "mode-gap", needs="batchnorm")
def eval_while_training(s: Setup, at: Site) -> str | None:
    """The model trains in evaluation mode, as after a validation without model.train()."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        model.eval()
        optimizer.zero_grad()
        loss = at.program.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    s.step = step
    return f"{STEP}: model.eval()"


@operator("scale", "grad-clip", "lr-low", counts=BREAKING)
def clipped_to_nothing(s: Setup, at: Site) -> str | None:
    """Gradients are clipped to a value below the optimizer's epsilon."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = at.program.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_value_(model.parameters(), 1e-12)
        optimizer.step()
        return loss.detach()

    s.step = step
    return f"{STEP}: clip_grad_value_(1e-12)"
