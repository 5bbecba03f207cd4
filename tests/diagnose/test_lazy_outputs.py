"""What computes when it is asked for shows nothing of what it reads: nobody is accused of ignoring an input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pytest_overfit import run_overfit

BATCH = {"condition": torch.linspace(-1, 1, 24).reshape(8, 3), "value": torch.linspace(-2, 2, 8)[:, None] ** 2}


class Flow:
    """A density whose shift and scale are computed where the density is."""

    def __init__(self, transform: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        self.base, self.transform = torch.zeros(8, 1), transform

    def log_prob(self, value: Tensor) -> Tensor:
        z, log_scale = self.transform(value)
        return -(z - self.base).square() / 2 - log_scale


class Conditional(nn.Module):
    def __init__(self, *, lazy: bool, blind: bool = False) -> None:
        super().__init__()
        self.hyper = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 2))
        self.lazy, self.blind = lazy, blind

    def forward(self, condition: Tensor) -> Flow | Tensor:
        shift, log_scale = self.hyper(condition * 0 if self.blind else condition).chunk(2, dim=1)
        log_scale = log_scale.tanh()
        if self.lazy:
            return Flow(lambda value: ((value - shift) * (-log_scale).exp(), log_scale))
        return torch.cat([shift, log_scale], dim=1)


def likelihood(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    density: Flow = model(batch["condition"])
    return -density.log_prob(batch["value"]).mean()


def regression(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    output: Tensor = model(batch["condition"])
    return (output[:, :1] - batch["value"]).square().mean()


@pytest.mark.parametrize("lazy", [True, False])
def test_a_healthy_model_passes_whatever_it_returns(lazy: bool) -> None:
    loss = likelihood if lazy else regression
    limit = {"objective": {"below": -0.5}} if lazy else {"objective": 0.01}
    result = run_overfit(
        lambda: Conditional(lazy=lazy),
        BATCH,
        loss,
        optimizer=lambda p: torch.optim.Adam(p, 1e-2),
        max_steps=1000,
        **limit,
    )
    assert [cause.id for cause in result.causes if cause.id == "input-ignored"] == []
    assert result.passed, result.failure_text()


def test_a_plain_output_is_still_asked() -> None:
    result = run_overfit(lambda: Conditional(lazy=False, blind=True), BATCH, regression, max_steps=100)
    assert "input-ignored" in [cause.id for cause in result.causes]


class Sharp(nn.Module):
    """An attention whose weights are exactly zero almost everywhere once it has learnt."""

    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.blind, self.keys, self.values = blind, nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        scores = self.keys(x)[..., 0] * 4
        if not self.blind:
            scores = scores.masked_fill(hidden, -1e4)
        weights = (scores - scores.amax(1, keepdim=True).detach() + 1).clamp(min=0)
        made: Tensor = (weights / weights.sum(1, keepdim=True) * self.values(x)[..., 0]).sum(1, keepdim=True)
        return made


@pytest.mark.parametrize("blind", [False, True])
def test_what_is_read_at_the_start_alone_is_read(blind: bool) -> None:
    """A mask over places that get no weight in the end was no idle input."""
    x = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(0))
    batch = {"x": x, "hidden": torch.zeros(3, 5, dtype=torch.bool), "y": x[:, 2, :1]}
    result = run_overfit(
        lambda: Sharp(blind),
        batch,
        lambda model, given: (model(given["x"], given["hidden"]) - given["y"]).square().mean(),
        max_steps=200,
    )
    assert ("input-ignored" in [cause.id for cause in result.causes]) is blind
