"""A mean that is divided once more by what it is a mean of, and factors that are none of these counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit

Loss = Callable[[Tensor, Tensor], Tensor]


def learn(loss: Loss | None, targets: Callable[[], Tensor], **settings: Any) -> list[str]:
    how: dict[str, Any] = {"loss": loss, "max_steps": 600, "objective": 2e-3, **settings}
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 4))
    batch = torch.randn(16, 6), targets()
    result = run_overfit(model, batch, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), **how)
    return [cause.id for cause in result.causes if cause.certain]


def values() -> Tensor:
    return torch.randn(16, 4)


def classes() -> Tensor:
    return torch.arange(16) % 4


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (lambda o, t: F.mse_loss(o, t) / t.numel(), values),
        (lambda o, t: (o - t).square().mean() / len(o), values),
        (lambda o, t: F.cross_entropy(o, t) * (1 / len(t)), classes),
    ],
    ids=["its elements", "samples", "labels"],
)
def test_a_mean_that_is_divided_again(loss: Loss, targets: Callable[[], Tensor]) -> None:
    assert learn(loss, targets) == ["loss-scale"]


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (lambda o, t: F.mse_loss(o, t, reduction="sum") / t.numel(), values),
        (lambda o, t: (o - t).square().sum() / len(o), values),
        (lambda o, t: F.cross_entropy(o, t) / 50, classes),
        (lambda o, t: (o - t).square().mean(1).mean() + F.l1_loss(o, t) / len(o), values),
    ],
    ids=["a sum", "of samples", "a weight", "of a term"],
)
def test_other_counts(loss: Loss, targets: Callable[[], Tensor]) -> None:
    assert learn(loss, targets, objective=0.02) == []


def test_a_part_of_an_accumulation() -> None:
    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for row, label in zip(batch[0], batch[1], strict=True):
            loss = F.cross_entropy(model(row[None]), label[None]) / len(batch[0])
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        optimizer.step()
        return total

    assert learn(None, classes, step=step, objective=0.02) == []
