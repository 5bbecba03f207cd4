"""Rates that a step sets by hand, in every group or in one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pytest_overfit import run_overfit
from tests.support.told import told

SOURCE = torch.Generator().manual_seed(2)
X, LABELS = torch.randn(8, 6, generator=SOURCE), torch.arange(8) % 3
STEPS, RATE = 300, 0.01
Schedule = Callable[[Optimizer, int], None]


def decayed(done: int) -> float:
    return RATE * (1 - done / STEPS)


def first_group(optimizer: Optimizer, done: int) -> None:
    optimizer.param_groups[0]["lr"] = decayed(done)


def every_group(optimizer: Optimizer, done: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = decayed(done)


def released(optimizer: Optimizer, done: int) -> None:
    """The first group learns from some step on."""
    optimizer.param_groups[0]["lr"] = RATE / 10 if done < 20 else RATE


def learn(schedule: Schedule) -> str:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 3))
    optimizer = torch.optim.Adam([{"params": layer.parameters()} for layer in (model[0], model[2])], lr=RATE)
    done = [0]

    def step(net: nn.Module, batch: Any, of: Optimizer) -> Any:
        schedule(of, done[0])
        done[0] += 1
        loss = F.cross_entropy(net(batch[0]), batch[1])
        of.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        of.step()
        return loss.detach()

    return told(run_overfit(model, (X, LABELS), step=step, optimizer=optimizer, objective=0.05, max_steps=STEPS))


def test_a_rate_that_is_set_in_the_first_group_alone() -> None:
    assert learn(first_group) == "lr-group"


@pytest.mark.parametrize("schedule", [every_group, released])
def test_rates_that_are_meant(schedule: Schedule) -> None:
    assert learn(schedule) == ""


def test_a_scheduler_with_a_function_for_every_group_is_meant() -> None:
    schedulers: list[LambdaLR] = []

    def schedule(optimizer: Optimizer, done: int) -> None:
        if not schedulers:
            schedulers.append(LambdaLR(optimizer, [lambda n: 1 - n / STEPS, lambda n: 1.0]))
        elif done:
            schedulers[0].step()

    assert learn(schedule) == ""
