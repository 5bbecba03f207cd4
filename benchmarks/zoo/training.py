# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Ways to train: own steps, schedules, optimizers, precision, teachers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from benchmarks.zoo.case import Setup, cases, fixed, mlp
from benchmarks.zoo.dense import classify, labelled, regress, targets
from benchmarks.zoo.vision import adam

Batch = dict[str, Any]
Optimizer = torch.optim.Optimizer


def scheduled(make: Callable[[Optimizer], LRScheduler], lr: float) -> Setup:
    """A classifier whose own step moves a schedule on."""
    model = mlp(20, 128, 128, 5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = make(optimizer)

    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = classify(model, batch)
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    return Setup(model, labelled(), optimizer=optimizer, step=step)


def warm_up_from_zero() -> Setup:
    """The learning rate of the first step is 0."""
    return scheduled(lambda optimizer: LambdaLR(optimizer, lambda step: min(step / 50, 1.0)), lr=2e-3)


def cosine_schedule() -> Setup:
    """Down to 0 over 400 steps."""
    return scheduled(lambda optimizer: CosineAnnealingLR(optimizer, 400), lr=2e-3)


def one_cycle() -> Setup:
    """Up, then down, with the momentum against it."""
    return scheduled(lambda optimizer: OneCycleLR(optimizer, max_lr=5e-3, total_steps=2000), lr=5e-3)


def warm_up_then_cosine_without_optimizer_argument() -> Setup:
    """A step of (model, batch) that brings its own optimizer."""
    model = mlp(20, 128, 128, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = LambdaLR(optimizer, lambda t: min(t / 20, (1 + math.cos(math.pi * min(t / 600, 1))) / 2))

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        loss = regress(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        return {"objective": loss.detach()}

    return Setup(model, targets(), optimizer=optimizer, step=step)


def gradient_clipping() -> Setup:
    """The norm of all gradients is held at 1."""

    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> tuple[Tensor, dict[str, Tensor]]:
        optimizer.zero_grad()
        loss = regress(model, batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss, {"grad_norm": norm}

    return Setup(mlp(20, 128, 128, 3), targets(), step=step, optimizer=adam(1e-3))


def gradient_accumulation() -> Setup:
    """Four micro-batches per update; the step returns a number."""

    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> float:
        optimizer.zero_grad(set_to_none=False)
        total = 0.0
        for x, y in zip(batch["x"].chunk(4), batch["y"].chunk(4), strict=True):
            loss = F.cross_entropy(model(x), y) / 4
            loss.backward()
            total += loss.item()
        optimizer.step()
        return total

    return Setup(mlp(20, 128, 128, 5), labelled(), step=step)


def grad_scaler() -> Setup:
    """The usual mixed precision step, its scaler off as there is no GPU."""
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = classify(model, batch)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return Setup(mlp(20, 128, 128, 5), labelled(), step=step, optimizer=adam(1e-3))


def bf16_autocast() -> Setup:
    """Products in bfloat16, parameters in float32."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(batch["x"])
        return F.cross_entropy(logits.float(), batch["y"])

    return Setup(mlp(20, 128, 128, 5), labelled(), loss)


def bf16_parameters() -> Setup:
    """Everything in bfloat16, plain SGD with a large step."""
    batch = labelled()
    batch["x"] = batch["x"].bfloat16()
    model = mlp(20, 128, 128, 5).bfloat16()
    return Setup(model, batch, classify, optimizer=torch.optim.SGD(model.parameters(), lr=0.3))


def float64_parameters() -> Setup:
    """Double precision throughout."""
    batch = targets()
    data = (batch["x"].double(), batch["y"].double())
    return Setup(mlp(20, 128, 128, 3).double(), data, nn.L1Loss(), optimizer=adam(5e-4))


def ema_teacher() -> Setup:
    """A mean teacher (Tarvainen and Valpola, 2017): the step updates it, the optimizer does not know it."""
    models = {"student": mlp(20, 128, 128, 5), "teacher": mlp(20, 128, 128, 5).requires_grad_(False)}
    models["teacher"].load_state_dict(models["student"].state_dict())
    optimizer = torch.optim.Adam(models["student"].parameters(), lr=1e-3)

    def step(models: Mapping[str, nn.Module], batch: Batch, optimizer: Optimizer) -> dict[str, Tensor]:
        student, teacher = models["student"], models["teacher"]
        logits = student(batch["x"])
        with torch.no_grad():
            goal = teacher(batch["x"]).softmax(1)
        supervised = F.cross_entropy(logits, batch["y"])
        consistency = F.mse_loss(logits.softmax(1), goal)
        optimizer.zero_grad()
        (supervised + consistency).backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 0.05)
        return {"objective": supervised + consistency, "supervised": supervised, "consistency": consistency}

    return Setup(models, labelled(), step=step, optimizer=optimizer)


def byol() -> Setup:
    """A predictor chases a moving target encoder (Grill et al., 2020): 2 - 2 cos."""
    online = mlp(24, 96, 96, 32)
    models = {"online": online, "predictor": mlp(32, 64, 32), "target": mlp(24, 96, 96, 32).requires_grad_(False)}
    models["target"].load_state_dict(online.state_dict())
    optimizer = torch.optim.Adam([*online.parameters(), *models["predictor"].parameters()], lr=1e-3)
    source = fixed()
    x = torch.randn(8, 24, generator=source)
    views = tuple(x + 0.2 * torch.randn(x.shape, generator=source) for _ in range(2))

    def step(models: Mapping[str, nn.Module], views: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        losses = []
        for left, right in (views, views[::-1]):
            with torch.no_grad():
                goal = models["target"](right)
            losses.append(1 - F.cosine_similarity(models["predictor"](models["online"](left)), goal).mean())
        loss = losses[0] + losses[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(models["target"].parameters(), models["online"].parameters(), strict=True):
                slow.lerp_(fast, 0.02)
        return loss.detach()

    return Setup(models, views, step=step, optimizer=optimizer)


def sharpness_aware() -> Setup:
    """Two passes per update, the first at the parameters, the second beside them (Foret et al., 2021)."""

    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = classify(model, batch)
        loss.backward()
        weights: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in weights if p.grad is not None]).norm() + 1e-12
        with torch.no_grad():
            aside = [0.02 * p.grad / norm for p in weights if p.grad is not None]
            torch._foreach_add_(weights, aside)
        optimizer.zero_grad()
        classify(model, batch).backward()
        with torch.no_grad():
            torch._foreach_sub_(weights, aside)
        optimizer.step()
        return loss.detach()

    return Setup(mlp(20, 128, 128, 5), labelled(), step=step)


def truncated_backpropagation() -> Setup:
    """Three optimizer steps per call, a detached state carried between them."""
    source = fixed()
    batch = (torch.randn(4, 18, 5, generator=source), torch.randn(4, 18, 2, generator=source))
    models = {"net": nn.GRU(5, 64, batch_first=True), "head": nn.Linear(64, 2)}

    def step(models: Mapping[str, nn.Module], batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        state, losses = None, []
        for x, y in zip(batch[0].chunk(3, dim=1), batch[1].chunk(3, dim=1), strict=True):
            out, state = models["net"](x, state)
            loss = F.mse_loss(models["head"](out), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            state = state.detach()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    return Setup(models, batch, step=step, optimizer=adam(5e-3))


CASES = cases(
    "training", warm_up_from_zero, cosine_schedule, one_cycle, warm_up_then_cosine_without_optimizer_argument,
    gradient_clipping, gradient_accumulation, grad_scaler, bf16_autocast, bf16_parameters, float64_parameters,
    ema_teacher, byol, sharpness_aware, truncated_backpropagation,
)  # fmt: skip
