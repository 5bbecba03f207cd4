"""What the targets of a batch come to in the objective: told by one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from tests.support.chinese import assert_chinese

SOURCE = torch.Generator().manual_seed(5)
X, V = torch.randn(12, 6, generator=SOURCE), torch.randn(12, 4, generator=SOURCE)
Loss = Callable[[nn.Module, Any], Tensor]


def learn(data: Any, loss: Loss, limit: float, outputs: int, optimizer: Any) -> OverfitResult:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, outputs))
    return run_overfit(model, data, loss, optimizer=optimizer, max_steps=400, objective=limit)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def squares(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def written_out(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()  # type: ignore[no-any-return]


@pytest.mark.parametrize("loss", [squares, written_out])
@pytest.mark.parametrize(
    ("unit", "limit", "causes"),
    [(1.0, 0.05, []), (1e-3, 0.05, ["target-scale"]), (1e-3, 1e-7, [])],
    ids=["in metres", "in kilometres", "in kilometres, and the limit too"],
)
def test_targets_that_differ_by_less_than_their_limit(loss: Loss, unit: float, limit: float, causes: list[str]) -> None:
    result = learn((X, unit * V), loss, limit, 4, adam)
    assert [cause.id for cause in result.causes if cause.certain] == causes
    if causes:
        assert not result.passed
        assert "their mean in place of every prediction" in result.causes[0].observed
        assert_chinese(result.causes[0])


def test_a_limit_that_one_number_for_all_meets_and_the_model_too() -> None:
    """What has come below both proves that it has learnt."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return squares(model, batch) * 1e-3

    result = learn((X, V), loss, 1e-5, 4, adam)
    assert result.passed, result.causes


@pytest.mark.parametrize(
    ("limit", "is_first"), [(0.01, True), (1e-4, False)], ids=["the mean meets the limit", "the mean does not"]
)
def test_a_sum_whose_limit_is_one_for_the_mean(limit: float, is_first: bool) -> None:
    """Where the mean misses the limit too, the sum is not what holds the run up."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1], reduction="sum")

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 4))
    result = run_overfit(model, (X, V), loss, optimizer=slow, max_steps=150, objective=limit)
    said = [cause for cause in result.causes if "of each, and the limit is" in cause.observed]
    assert not result.passed
    assert [cause.id for cause in said] == (["loss-scale"] if is_first else [])
    assert not is_first or result.causes[0] == said[0], result.causes
    for cause in said:
        assert_chinese(cause)


def slow(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=3e-3)
