"""A weight that no right optimizer could move at such a rate is no fault of the update: the rate is too low."""

from __future__ import annotations

import torch
from torch import nn

from pytest_overfit import run_overfit

BATCH = torch.linspace(-1, 1, 32).reshape(8, 4), torch.linspace(1, -1, 8).reshape(8, 1) ** 2


def network() -> nn.Module:
    """The scale of the norm is 1, and float32 has no number between 1 and 1 + 1e-8."""
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.LayerNorm(32), nn.Linear(32, 1))


class Forgetful(torch.optim.SGD):
    """Computes the new weights, and keeps them to itself."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                weight = weight - group["lr"] * weight.grad


def test_a_rate_below_the_rounding_is_a_low_rate() -> None:
    result = run_overfit(network, BATCH, nn.MSELoss(), optimizer=lambda p: torch.optim.Adam(p, 1e-8))
    assert [cause.id for cause in result.causes][:1] == ["lr-low"]
    assert "no-update" not in [cause.id for cause in result.causes]


def test_weights_that_the_optimizer_leaves_alone_are_still_named() -> None:
    result = run_overfit(network, BATCH, nn.MSELoss(), optimizer=lambda p: Forgetful(p, 0.1), max_steps=100)
    assert [cause.id for cause in result.causes][:1] == ["no-update"]
