"""Weights that multiply a state of zeros get no gradient: an effect of the batch, told and no fault."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit


class Recurrent(nn.Module):
    """A cell that is given the state to begin with."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(4, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.head(self.cell(x, (other, other))[0])  # type: ignore[no-any-return]


class Prior(nn.Module):
    """A layer of its own for a second input."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.trunk, self.prior, self.head = nn.Linear(4, 32), nn.Linear(32, 32, bias=bias), nn.Linear(32, 3)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.head((self.trunk(x) + self.prior(other)).tanh())  # type: ignore[no-any-return]


class Gated(nn.Module):
    """A branch of two layers behind a gate that the batch shuts."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(4, 32), nn.Linear(32, 3)
        self.branch = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 32))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.head((self.trunk(x) + self.branch(x) * other).tanh())  # type: ignore[no-any-return]


def learn(model: Any, other: Tensor) -> OverfitResult:
    torch.manual_seed(0)
    batch = {"x": torch.randn(6, 4), "other": other, "y": torch.arange(6) % 3}

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch["x"], batch["other"]), batch["y"])

    return run_overfit(model, batch, loss, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))


@pytest.mark.parametrize(("model", "named"), [(Recurrent, "cell.weight_hh"), (Prior, "prior.weight")])
def test_weights_that_multiply_a_zero_of_the_batch_wait(model: Any, named: str) -> None:
    """The run passes, and says what it has not asked."""
    result = learn(model, torch.zeros(6, 32))
    assert result.passed
    told = next(finding for finding in result.findings if finding.name == "gradients").observed
    assert f"not asked: {named}, which this batch does not use" in told
    result = learn(model, torch.ones(6, 32))
    assert result.passed
    assert "not asked" not in next(finding for finding in result.findings if finding.name == "gradients").observed


@pytest.mark.parametrize("model", [Gated, lambda: Prior(bias=False)])
def test_a_branch_that_waits_as_a_whole_is_a_mistake(model: Any) -> None:
    """Nothing of it learns: the zero stands behind it."""
    result = learn(model, torch.zeros(6, 32))
    assert "gradients" in [finding.name for finding in result.findings if finding.missed]
