"""Programs whose loss falls by itself: they reach their limit without having learnt, and are red."""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.sabotage.small_programs import Program, adam, expect_red, labelled, measured, net, one_step

CALLS = 0


def counter_in_a_closure() -> dict[str, Any]:
    calls = [0]

    def loss(model: Any, batch: Any) -> Any:
        calls[0] += 1
        return F.cross_entropy(model(batch[0]), batch[1]) * 0.9 ** calls[0]

    return {"model": net, "data": labelled(), "loss": loss}


def _counted_globally(model: Any, batch: Any) -> Tensor:
    global CALLS
    CALLS += 1
    return F.cross_entropy(model(batch[0]), batch[1]) / (1 + CALLS)


def counter_in_a_global() -> dict[str, Any]:
    return {"model": net, "data": labelled(), "loss": _counted_globally}


def counter_on_the_function() -> dict[str, Any]:
    def loss(model: Any, batch: Any) -> Any:
        loss.calls = getattr(loss, "calls", 0) + 1  # type: ignore[attr-defined]
        return F.cross_entropy(model(batch[0]), batch[1]) * 0.9 ** float(loss.calls)  # type: ignore[attr-defined]

    return {"model": net, "data": labelled(), "loss": loss}


def counter_in_a_buffer() -> dict[str, Any]:
    class Counting(nn.Module):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.inner = net()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Any:
            self.calls += 1
            return self.inner(x)

    return {
        "model": Counting,
        "data": labelled(),
        "loss": lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]) * 0.9**model.calls,
    }


def counter_of_the_optimizer() -> dict[str, Any]:
    made: list[Any] = []

    def optimizer(parameters: Any) -> Any:
        made.append(torch.optim.Adam(parameters, lr=1e-4))
        return made[-1]

    def loss(model: Any, batch: Any) -> Any:
        steps = next((float(state["step"]) for state in made[-1].state.values()), 0.0)
        return F.cross_entropy(model(batch[0]), batch[1]) * 0.9**steps

    return {"model": net, "data": labelled(), "loss": loss, "optimizer": optimizer}


def wall_clock() -> dict[str, Any]:
    started = time.monotonic()

    def loss(model: Any, batch: Any) -> Any:
        return F.cross_entropy(model(batch[0]), batch[1]) * math.exp(-20 * (time.monotonic() - started))

    return {"model": net, "data": labelled(), "loss": loss, "optimizer": adam(1e-5), "max_steps": 100_000}


def factor_in_the_step() -> dict[str, Any]:
    calls = [0]

    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        calls[0] += 1
        return one_step(model, batch, optimizer, 0.9 ** calls[0])

    return {"model": net, "data": labelled(), "step": step}


def samples_that_drop_out_at_random() -> dict[str, Any]:
    kept = list(range(12))

    def loss(model: Any, batch: Any) -> Any:
        if kept and torch.rand(()) < 0.1:
            kept.pop()
        if not kept:
            return 0.0 * model(batch[0]).sum()
        return F.cross_entropy(model(batch[0])[kept], batch[1][kept], reduction="sum") / 12

    return {"model": net, "data": labelled(), "loss": loss, "optimizer": adam(1e-4)}


def memory_that_returns_the_target() -> dict[str, Any]:
    class Remembering(nn.Module):
        memory: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.inner = net()
            self.register_buffer("memory", torch.zeros(12, 3))

        def forward(self, x: Tensor) -> Any:
            return self.inner(x) + self.memory

    def loss(model: Any, batch: Any) -> Any:
        value = F.cross_entropy(model(batch[0]), batch[1])
        with torch.no_grad():
            model.memory += 0.2 * F.one_hot(batch[1], 3)
        return value

    return {"model": Remembering, "data": labelled(), "loss": loss, "optimizer": adam(1e-4)}


def target_that_becomes_the_prediction() -> dict[str, Any]:
    calls = [0]

    def loss(model: Any, batch: Any) -> Any:
        calls[0] += 1
        share, predicted = min(1.0, calls[0] / 50), model(batch[0]).softmax(-1)
        target = F.one_hot(batch[1]).float()
        return F.mse_loss(predicted, (1 - share) * target + share * predicted.detach())

    return {"model": net, "data": labelled(), "loss": loss, "optimizer": adam(1e-4)}


def metric_of_the_learning_rate() -> dict[str, Any]:
    def step(model: Any, batch: Any, optimizer: Any) -> dict[str, Any]:
        value = one_step(model, batch, optimizer)
        optimizer.param_groups[0]["lr"] *= 0.95
        return {"objective": value, "progress": 1 - optimizer.param_groups[0]["lr"] / 1e-3}

    return {"model": net, "data": labelled(), "step": step, "objective": False, "progress": {"above": 0.9}}


def trained_outside_of_the_model() -> dict[str, Any]:
    delta = torch.zeros(40, 3, requires_grad=True)

    def optimizer(parameters: Any) -> Any:
        return torch.optim.Adam([{"params": list(parameters), "lr": 1e-4}, {"params": [delta], "lr": 0.1}])

    return {
        "model": net,
        "data": measured(),
        "loss": lambda model, batch: F.mse_loss(model(batch[0]), batch[1] + delta),
        "optimizer": optimizer,
    }


def weight_outside_of_the_model() -> dict[str, Any]:
    weight = torch.zeros((), requires_grad=True)

    def optimizer(parameters: Any) -> Any:
        return torch.optim.Adam([{"params": list(parameters), "lr": 1e-4}, {"params": [weight], "lr": 0.3}])

    return {
        "model": net,
        "data": labelled(),
        "loss": lambda model, batch: torch.sigmoid(weight) * F.cross_entropy(model(batch[0]), batch[1]),
        "optimizer": optimizer,
    }


def copy_that_is_trained() -> dict[str, Any]:
    held: list[Any] = []

    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        if not held:
            twin = copy.deepcopy(model)
            held.extend([twin, torch.optim.Adam(twin.parameters(), lr=1e-2)])
        value = one_step(held[0], batch, held[1])
        one_step(model, batch, optimizer, 1e-3)
        return value

    return {"model": net, "data": labelled(), "step": step}


BY_ITSELF = (
    counter_in_a_closure, counter_in_a_global, counter_on_the_function, counter_in_a_buffer, counter_of_the_optimizer,
    wall_clock, factor_in_the_step, samples_that_drop_out_at_random, memory_that_returns_the_target,
    target_that_becomes_the_prediction, trained_outside_of_the_model, weight_outside_of_the_model, copy_that_is_trained,
)  # fmt: skip


@pytest.mark.parametrize("program", BY_ITSELF, ids=lambda program: program.__name__)
def test_a_loss_that_falls_by_itself_is_red(program: Program) -> None:
    """At the initial weights it has fallen as well."""
    expect_red(program, "objective falls without the weights: back at the initial weights it is ")


def test_a_metric_that_rises_by_itself_is_red() -> None:
    """A limit from below is reached by the schedule alone."""
    expect_red(metric_of_the_learning_rate, "progress rises without the weights: back at the initial weights it is 0.9")
