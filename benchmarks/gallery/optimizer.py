# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Mistakes in the optimizer, its hyper-parameters and the update."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gallery.case import breaking, silent
from benchmarks.zoo.case import Setup
from benchmarks.zoo.dense import classify
from benchmarks.zoo.training import scheduled
from benchmarks.zoo.vision import adam

Batch = dict[str, Any]
Optimizer = torch.optim.Optimizer


def sgd(lr: float, momentum: float = 0.9) -> Callable[[Iterable[Tensor]], Optimizer]:
    """An optimizer factory."""
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=momentum)


def keep_settings(healthy: Setup, broken: Setup) -> Setup:
    """The broken setup under the declarations of its twin."""
    return replace(broken, settings=healthy.settings)


@silent("camera_pose", "optimizer-coverage", where="translation.* is in no optimizer")
def head_left_out(h: Setup) -> Setup:
    parameters = [*h.model.trunk.parameters(), *h.model.rotation.parameters()]
    return replace(h, optimizer=torch.optim.AdamW(parameters, lr=1e-3))


@silent("pretrained_head_swap", "optimizer-coverage", where="head.* was swapped after the optimizer was built")
def head_swapped_late(h: Setup) -> Setup:
    optimizer = torch.optim.Adam(h.model.parameters(), lr=2e-3)
    h.model.head = nn.Linear(96, 5)
    return replace(h, optimizer=optimizer)


@breaking("mlp_regression", "optimizer-coverage", "wrong-model", "no-update", where="the optimizer holds a copy")
def optimizer_of_a_copy(h: Setup) -> Setup:
    return replace(h, optimizer=torch.optim.AdamW(copy.deepcopy(h.model).parameters(), lr=1e-3))


@silent("contrastive_two_towers", "optimizer-coverage", where="text.* and log_scale are in no optimizer")
def one_tower_left_out(h: Setup) -> Setup:
    return replace(h, optimizer=torch.optim.AdamW(h.model.image.parameters(), lr=1e-3))


class CopyingSGD(torch.optim.SGD):
    """Updates a contiguous copy: a weight that is laid out otherwise stays as it is."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.contiguous().sub_(group["lr"] * parameter.grad)


@silent("sgd_regression", "no-update", where="0.weight is not contiguous and never moves")
def step_on_contiguous_copies(h: Setup) -> Setup:
    h.model[0].weight.data = h.model[0].weight.data.T.contiguous().T
    return replace(h, optimizer=lambda p: CopyingSGD(p, lr=0.2))


class RebindingSGD(torch.optim.SGD):
    """Makes new tensors of the updated values; the model keeps the old ones."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p = p - group["lr"] * p.grad


@breaking("sgd_regression", "no-update", where="step() makes new tensors in place of an update in place")
def step_rebinds_the_name(h: Setup) -> Setup:
    return replace(h, optimizer=lambda p: RebindingSGD(p, lr=0.2))


@breaking("own_step", "no-step", "no-update", where="the step has no optimizer.step()")
def missing_step(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = classify(model, batch)
        loss.backward()
        return loss.detach()

    return replace(h, step=step)


@breaking("own_step", "no-step", "no-update", where="accumulates 1024 micro-batches, more than the run has")
def accumulation_longer_than_the_run(h: Setup) -> Setup:
    count = [0]

    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        loss = classify(model, batch)
        (loss / 1024).backward()
        count[0] += 1
        if count[0] % 1024 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    return replace(h, step=step)


@breaking("gradient_clipping", "no-step", "no-update", where="steps with a gradient norm above 0.01 are skipped")
def bad_batches_skipped(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch["x"]), batch["y"])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if norm < 0.01:  # meant as: skip what has exploded
            optimizer.step()
        return loss.detach()

    return replace(h, step=step)


@breaking("graph_attention", "lr-high", where="Adam with a learning rate of 1")
def adam_rate_of_one(h: Setup) -> Setup:
    return replace(h, optimizer=adam(1.0))


@breaking("mlp_regression", "lr-high", where="SGD with a learning rate of 20")
def sgd_rate_of_twenty(h: Setup) -> Setup:
    return replace(h, optimizer=sgd(20.0, momentum=0.0))


@breaking("tiny_gpt", "lr-high", where="a rate for SGD, 0.3, under Adam")
def rate_copied_from_sgd(h: Setup) -> Setup:
    return replace(h, optimizer=adam(0.3))


@breaking("cnn", "lr-low", where="a learning rate of 1e-6")
def rate_of_1e_6(h: Setup) -> Setup:
    return replace(h, optimizer=adam(1e-6))


@breaking("autoencoder", "lr-low", "no-update", where="a learning rate of 0, from 1 // 1000")
def rate_from_integer_division(h: Setup) -> Setup:
    return replace(h, optimizer=adam(1 // 1000))


@breaking("deep_sets", "lr-low", where="a learning rate for 4096 workers divided by 4096")
def rate_divided_by_the_workers(h: Setup) -> Setup:
    return replace(h, optimizer=sgd(5e-3 / 4096))


@breaking("warm_up_from_zero", "lr-schedule", "lr-low", where="a warm-up over a million steps")
def warm_up_of_a_million(h: Setup) -> Setup:
    make = lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: t / 1e6)  # noqa: E731
    return keep_settings(h, scheduled(make, lr=2e-3))


@breaking("cosine_schedule", "lr-schedule", "lr-low", where="an epoch's decay of 0.5 at every batch")
def decay_at_every_batch(h: Setup) -> Setup:
    make = lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5)  # noqa: E731
    return keep_settings(h, scheduled(make, lr=2e-3))


@breaking("warm_up_from_zero", "lr-schedule", "lr-high", where="a gamma of 10 in place of 0.1")
def rate_grows_tenfold(h: Setup) -> Setup:
    make = lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 10.0)  # noqa: E731
    return keep_settings(h, scheduled(make, lr=2e-3))


def groups(h: Setup, first: float, rest: float) -> Setup:
    """One rate for the first layer and one for the rest."""
    parameters: list[dict[str, Any]] = [
        {"params": list(h.model[0].parameters()), "lr": first},
        {"params": [*h.model[1:].parameters()]},
    ]
    return replace(h, optimizer=torch.optim.AdamW(parameters, lr=rest, weight_decay=0.0))


@breaking("parameter_groups", "lr-group", "lr-low", where="group 1 (all but 0.*) has a rate of 1e-8")
def head_group_rate_of_1e_8(h: Setup) -> Setup:
    return groups(h, 2e-5, 1e-8)


@silent("parameter_groups", "lr-group", "lr-high", where="group 0 (0.*) has a rate of 3")
def first_group_rate_of_three(h: Setup) -> Setup:
    return groups(h, 3.0, 1e-3)


@silent("recommender", "lr-group", "no-update", where="the group of users.* has a rate of 0")
def user_group_rate_of_zero(h: Setup) -> Setup:
    users = list(h.model.users.parameters())
    rest = [p for name, p in h.model.named_parameters() if not name.startswith("users.")]
    groups: list[dict[str, Any]] = [{"params": users, "lr": 0.0}, {"params": rest}]
    return replace(h, optimizer=torch.optim.Adam(groups, lr=0.01))


@breaking("mlp_regression", "weight-decay", where="a weight decay of 50")
def decay_of_fifty(h: Setup) -> Setup:
    return replace(h, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=50.0))


@breaking("regularised", "weight-decay", "term-weight", where="the penalty weighs 0.1 in place of 1e-5")
def penalty_drowns_the_fit(h: Setup) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        fit = F.mse_loss(model(batch["x"]), batch["y"])
        penalty = sum((p.square().sum() for p in model.parameters()), torch.zeros(()))
        return {"objective": fit + 0.1 * penalty, "fit": fit, "penalty": penalty}

    return replace(h, loss=loss)


@breaking("graph_convolution", "weight-decay", where="an L2 penalty of 0.5 inside Adam")
def decay_inside_adam(h: Setup) -> Setup:
    return replace(h, optimizer=lambda p: torch.optim.Adam(p, lr=5e-3, weight_decay=0.5))


@breaking("sgd_regression", "optimizer-hyperparameter", "loss-sign", where="maximize=True")
def maximize(h: Setup) -> Setup:
    return replace(h, optimizer=lambda p: torch.optim.SGD(p, lr=0.05, maximize=True))


@breaking("coordinate_network", "optimizer-hyperparameter", "lr-low", where="eps=100 swamps the second moment")
def eps_of_a_hundred(h: Setup) -> Setup:
    return replace(h, optimizer=lambda p: torch.optim.Adam(p, lr=3e-3, eps=100.0))


@breaking("sgd_regression", "optimizer-hyperparameter", "lr-high", where="a momentum of 0.9999")
def momentum_of_0_9999(h: Setup) -> Setup:
    return replace(h, optimizer=sgd(0.05, momentum=0.9999))


@breaking("coordinate_network", "optimizer-hyperparameter", where="betas (0.9999, 0.9)")
def betas_swapped_and_close_to_one(h: Setup) -> Setup:
    return replace(h, optimizer=lambda p: torch.optim.Adam(p, lr=3e-3, betas=(0.9999, 0.9)))


@breaking("own_step_sgd", "grad-clip", "lr-low", where="clip_grad_norm_ with 1e-6")
def clipped_to_1e_6(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = classify(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-6)
        optimizer.step()
        return loss.detach()

    return replace(h, step=step)


@breaking("own_step_sgd", "grad-clip", "lr-low", where="clip_grad_value_ with 1e-5")
def values_clipped_to_1e_5(h: Setup) -> Setup:
    def step(model: nn.Module, batch: Batch, optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = classify(model, batch)
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 1e-5)
        optimizer.step()
        return loss.detach()

    return replace(h, step=step)
