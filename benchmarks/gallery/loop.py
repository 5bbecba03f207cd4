# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Mistakes in the train step: order, accumulation, lost state, another loss, another model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gallery.case import breaking, silent
from benchmarks.zoo.bare import build_optimizer
from benchmarks.zoo.case import Setup
from benchmarks.zoo.dense import classify

Batch = dict[str, Any]
Optimizer = torch.optim.Optimizer


@breaking("own_step_sgd", "grad-accumulation", where="no zero_grad in the step")
def missing_zero_grad(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        loss = classify(model, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    optimizer = torch.optim.SGD(h.model.parameters(), lr=0.3, momentum=0.9)
    return replace(h, step=step, optimizer=optimizer)


@breaking("own_step_sgd", "grad-accumulation", "loss-scale", "lr-high", where="64 micro-batches, not divided by 64")
def accumulated_without_division(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        for _ in range(4):
            for x, y in zip(batch["x"].split(1), batch["y"].split(1), strict=True):
                loss = F.cross_entropy(model(x), y)
                loss.backward()
        optimizer.step()
        return classify(model, batch).detach()

    return replace(h, step=step)


@silent("own_step", "grad-accumulation", where="zero_grad only every fifth step, and a step each time")
def zero_grad_every_fifth_step(h: Setup) -> Setup:
    count = [0]

    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        if count[0] % 5 == 0:
            optimizer.zero_grad()
        count[0] += 1
        loss = classify(model, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return replace(h, step=step)


@breaking("own_step", "step-order", "no-update", where="zero_grad between backward and step")
def zero_grad_after_backward(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        loss = classify(model, batch)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
        return loss.detach()

    return replace(h, step=step)


@breaking("own_step_sgd", "step-order", "no-update", where="step before backward, right after zero_grad")
def step_before_backward(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        optimizer.step()
        loss = classify(model, batch)
        loss.backward()
        return loss.detach()

    return replace(h, step=step)


def clipped_norm(setup: Setup) -> float:
    """The norm that clipping saw in a first step."""
    return float(setup.step(setup.model, setup.data, build_optimizer(setup))[1]["grad_norm"])


@silent(
    "gradient_clipping",
    "step-order",
    "grad-clip",
    where="clip_grad_norm_ before backward, on gradients that are not there",
    shows=clipped_norm,
)
def clipped_before_backward(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> tuple[Tensor, dict[str, Tensor]]:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch["x"]), batch["y"])
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        loss.backward()
        optimizer.step()
        return loss, {"grad_norm": norm}

    return replace(h, step=step)


@silent("own_step", "optimizer-state", where="a new Adam in every step")
def optimizer_made_in_every_step(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch) -> Tensor:
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        optimizer.zero_grad()
        loss = classify(model, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return replace(h, step=step)


@silent("own_step_sgd", "optimizer-state", where="the momentum is dropped after every step")
def momentum_dropped(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = classify(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.state.clear()
        return loss.detach()

    return replace(h, step=step)


@silent("own_step", "optimizer-state", where="the optimizer's state of step 1 is loaded before every step")
def optimizer_state_reloaded(h: Setup) -> Setup:
    saved: list[Any] = []

    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        if saved:
            optimizer.load_state_dict(copy.deepcopy(saved[0]))
        optimizer.zero_grad()
        loss = classify(model, batch)
        loss.backward()
        optimizer.step()
        if not saved:
            saved.append(copy.deepcopy(optimizer.state_dict()))
        return loss.detach()

    return replace(h, step=step)


@breaking("own_step", "weights-reset", where="a checkpoint is loaded every tenth step")
def checkpoint_reloaded(h: Setup) -> Setup:
    saved, count = copy.deepcopy(h.model.state_dict()), [0]

    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        count[0] += 1
        if count[0] % 10 == 0:
            model.load_state_dict(saved)
        optimizer.zero_grad()
        loss = classify(model, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return replace(h, step=step)


@breaking("ema_teacher", "weights-reset", where="the slow teacher is copied back into the student")
def teacher_copied_into_student(h: Setup) -> Setup:
    def step(models: Mapping[str, nn.Module], batch: Batch, optimizer: Optimizer) -> dict[str, Tensor]:
        loss = h.step(models, batch, optimizer)
        models["student"].load_state_dict(models["teacher"].state_dict())
        return loss

    return replace(h, step=step)


class Reinitialised(nn.Module):
    """Initialises its head in forward."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        last = body[-1]
        assert isinstance(last, nn.Linear)
        self.body, self.head = body[:-1], last

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            nn.init.xavier_uniform_(self.head.weight)
        return self.head(self.body(x))


@breaking("mlp_classification", "weights-reset", "stochastic", where="head.weight is initialised in every forward")
def head_initialised_in_forward(h: Setup) -> Setup:
    return replace(h, model=Reinitialised(h.model))


@breaking(
    "two_tasks_with_metrics", "wrong-backward", "term-missing", where="backward on `label`, value + label reported"
)
def backward_on_one_term(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> tuple[Tensor, dict[str, Any]]:
        optimizer.zero_grad()
        total, terms = h.loss(model, batch)
        terms["label"].backward()
        optimizer.step()
        return total.detach(), {name: terms[name].detach() for name in ("label", "value")}

    return replace(h, step=step)


@breaking(
    "conditional_gan", "wrong-backward", "term-missing", "loss-sign", where="the generator follows -adversarial only"
)
def generator_follows_the_wrong_loss(h: Setup) -> Setup:
    def judge(models: Mapping[str, nn.Module], edges: Tensor, photo: Tensor, real: bool) -> Tensor:
        logits = models["discriminator"](torch.cat([edges, photo], dim=1))
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))

    def step(models: Mapping[str, nn.Module], batch: Batch, optimizers: Mapping[str, Optimizer]) -> dict[str, Tensor]:
        edges, photo = batch["edges"], batch["photo"]
        made = models["generator"](edges)
        optimizers["discriminator"].zero_grad()
        discriminator = (judge(models, edges, photo, True) + judge(models, edges, made.detach(), False)) / 2
        discriminator.backward()
        optimizers["discriminator"].step()
        optimizers["generator"].zero_grad()
        l1, adversarial = F.l1_loss(made, photo), judge(models, edges, made, False)
        adversarial.backward()
        optimizers["generator"].step()
        return {"objective": l1.detach(), "adversarial": adversarial.detach(), "discriminator": discriminator.detach()}

    return replace(h, step=step)


@breaking("own_step", "wrong-backward", "target-mismatch", where="backward on the labels of before the permutation")
def backward_on_other_labels(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        logits, order = model(batch["x"]), torch.arange(len(batch["x"])).flip(0)
        optimizer.zero_grad()
        F.cross_entropy(logits, batch["y"][order]).backward()
        optimizer.step()
        return F.cross_entropy(logits, batch["y"]).detach()

    return replace(h, step=step)


@breaking(
    "own_step", "wrong-model", "optimizer-coverage", "no-update", where="a copy is trained, the model is reported"
)
def copy_is_trained(h: Setup) -> Setup:
    trained = copy.deepcopy(h.model)
    optimizer = torch.optim.Adam(trained.parameters(), lr=2e-3)

    def step(model: nn.Module, batch: Batch) -> Tensor:
        optimizer.zero_grad()
        classify(trained, batch).backward()
        optimizer.step()
        return classify(model, batch).detach()

    return replace(h, step=step, optimizer=None)


@breaking("ema_teacher", "wrong-model", where="the loss of the teacher is reported, which is never updated")
def teacher_is_reported(h: Setup) -> Setup:
    def step(models: Mapping[str, nn.Module], batch: Batch, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        classify(models["student"], batch).backward()
        optimizer.step()
        with torch.no_grad():
            return classify(models["teacher"], batch)

    return replace(h, step=step)


@silent("own_step", "wrong-model", "optimizer-coverage", where="the loss of a copy is reported, the model stays")
def copy_is_trained_and_reported(h: Setup) -> Setup:
    trained = copy.deepcopy(h.model)
    optimizer = torch.optim.Adam(trained.parameters(), lr=3e-3)

    def step(model: nn.Module, batch: Batch) -> Tensor:
        optimizer.zero_grad()
        loss = classify(trained, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return replace(h, step=step, optimizer=None)
