"""Terms that grow otherwise with the batch, and targets that another type has changed, beside healthy neighbours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

SOURCE = torch.Generator().manual_seed(13)
X, Y = torch.randn(6, 5, generator=SOURCE), 2 * torch.randn(6, 3, generator=SOURCE)
KINDS = torch.tensor([1, 5, 256, 258, 0, 257])


def learn(model: Any, batch: Any, loss: Callable[[nn.Module, Any], Any], **more: Any) -> list[str]:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, 5e-3), "objective": 5.0, "max_steps": 60}
    result: OverfitResult = run_overfit(model, batch, loss, **{**settings, **more})
    return [cause.id for cause in result.causes if cause.certain]


class Coded(nn.Module):
    """A code with a mean and a spread, and what is made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread, self.back = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Any:
        mean, spread = self.mean(x), self.spread(x)
        return self.back(mean), mean, spread


def divergence(mean: Tensor, spread: Tensor) -> Tensor:
    return -0.5 * (1 + spread - mean.square() - spread.exp())


def coded(model: nn.Module, x: Tensor, *, first: str, second: str) -> Any:
    made, mean, spread = model(x)
    how: dict[str, Callable[[Tensor], Tensor]] = {
        "sum": torch.sum,
        "mean": torch.mean,
        "mean of sums": lambda t: t.sum(1).mean(),
        "sum for each": lambda t: t.sum().expand(len(t)).mean(),
    }
    terms = {"made": how[first]((made - x).square()), "code": how[second](divergence(mean, spread))}
    return {"objective": terms["made"] + 0.01 * terms["code"], **terms}


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("mean", "sum", True),
        ("mean", "sum for each", True),
        ("sum", "mean of sums", True),
        ("mean", "mean of sums", False),
        ("sum", "sum", False),
    ],
)
@pytest.mark.parametrize("samples", [6, 3, 2])
def test_terms_that_grow_otherwise_with_the_batch(first: str, second: str, found: bool, samples: int) -> None:
    causes = learn(Coded, X[:samples], partial(coded, first=first, second=second), objective=100.0)
    assert ("loss-scale" in causes) == found, causes


def test_a_penalty_of_weights_does_not_grow() -> None:
    def loss(model: nn.Module, batch: Any) -> Any:
        error, size = (
            F.mse_loss(model(batch[0]), batch[1], reduction="sum"),
            sum(p.square().sum() for p in model.parameters()),
        )
        return {"objective": error + 1e-3 * size, "error": error, "size": size}

    assert "loss-scale" not in learn(nn.Linear(5, 3), (X, Y), loss, objective=500.0)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda y: y.int().float(), True),
        (lambda y: y.round(), True),
        (lambda y: (y > 0).float(), False),
        (lambda y: 2 * y, False),
        (lambda y: y.double().float(), False),
    ],
    ids=["cut", "rounded", "which side", "twice", "exact"],
)
def test_numbers_without_their_fractions(change: Callable[[Tensor], Tensor], found: bool) -> None:
    causes = learn(nn.Linear(5, 3), (X, Y), lambda model, batch: F.mse_loss(model(batch[0]), change(batch[1])))
    assert ("target-mismatch" in causes) == found, causes


@pytest.mark.parametrize(("dtype", "found"), [(torch.uint8, True), (torch.int8, True), (torch.int16, False)])
def test_classes_of_a_type_that_is_too_small(dtype: torch.dtype, found: bool) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1].to(dtype).long())

    causes = learn(nn.Linear(5, 260), (X, KINDS), loss, objective=10.0)
    assert ("target-mismatch" in causes) == found, causes
