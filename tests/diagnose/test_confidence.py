"""A confidence that is weighed against an error has no floor; nor has a sign that is turned, which is a mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_overfit import OverfitResult, run_overfit

Pair = tuple[Tensor, Tensor]


class Sure(nn.Module):
    """Values, and how sure it is of each."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.value, self.sure = nn.Linear(6, 64), nn.Linear(64, 3), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.trunk(x).tanh()
        return {"value": self.value(hidden), "sure": 1 + self.sure(hidden).exp()}


def healthy(error: Tensor, sure: Tensor) -> Tensor:
    return (error * sure - 0.2 * sure.log()).mean()


def likelihood(error: Tensor, sure: Tensor) -> Tensor:
    return (0.5 * error.square() * sure - 0.5 * sure.log()).mean()


def turned(error: Tensor, sure: Tensor) -> Tensor:
    return (-error * sure - 0.2 * sure.log()).mean()


def run(weigh: Callable[[Tensor, Tensor], Tensor], steps: int) -> OverfitResult:
    torch.manual_seed(0)
    batch = (torch.randn(5, 6), torch.randn(5, 3))

    def loss(model: nn.Module, batch: Pair) -> dict[str, Any]:
        out = model(batch[0])
        error = (out["value"] - batch[1]).abs()
        return {"objective": weigh(error, out["sure"]), "error": error.mean()}

    adam = lambda p: torch.optim.Adam(p, lr=3e-3)  # noqa: E731
    return run_overfit(Sure(), batch, loss, optimizer=adam, max_steps=steps, objective=-20.0, error=1e-6)


@pytest.mark.parametrize("weigh", [healthy, likelihood])
def test_a_confidence_short_of_steps_has_no_wrong_sign(weigh: Callable[[Tensor, Tensor], Tensor]) -> None:
    """It goes below zero, and over free predictions without end: only for both of its outputs together."""
    result = run(weigh, 250)
    assert result.record.curves["objective"][-1] < 0
    assert not result.passed
    assert "loss-sign" not in [cause.id for cause in result.causes]


def test_an_error_that_is_rewarded_is_named() -> None:
    """One output alone brings it down."""
    assert run(turned, 60).causes[0].id == "loss-sign"
