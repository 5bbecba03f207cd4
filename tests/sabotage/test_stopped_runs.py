"""One fault of a run is one missed criterion, in a call and in a config."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_overfit import run_overfit


class Nan(nn.Linear):
    """Not one number."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.nan


def frozen() -> nn.Module:
    """Nothing is trainable."""
    return nn.Linear(2, 1).requires_grad_(False)


def half(x: Tensor) -> Tensor:
    """Part of a batch is not finite."""
    return torch.cat([x[:-1], torch.full_like(x[-1:], torch.nan)])


def detached(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A loss without a graph."""
    return nn.functional.mse_loss(model(batch[0]).detach(), batch[1])


X, Y = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.ones(4, 1)


@pytest.mark.parametrize(
    ("model", "batch", "loss", "red"),
    [
        (Nan(2, 1), (X, Y), nn.functional.mse_loss, "finite"),
        (nn.Linear(2, 1), (half(X), Y), nn.functional.mse_loss, "finite"),
        (nn.Linear(2, 1), (X, half(Y)), nn.functional.mse_loss, "finite"),
        (frozen(), (X, Y), nn.functional.mse_loss, "gradients"),
        (nn.Linear(2, 1), (X, Y), detached, "gradients"),
    ],
)
def test_a_run_that_stops_at_a_fault_misses_one_criterion(
    model: nn.Module, batch: tuple[Tensor, Tensor], loss: object, red: str
) -> None:
    """The others say which, and are neither passed nor missed."""
    result = run_overfit(model, batch, loss, max_steps=20, monotonic=True, diagnose=False)
    assert [finding.name for finding in result.findings if finding.missed] == [red]
    assert not result.passed
    assert {f.echo_of for f in result.findings if not f.judged} == {red}
    assert "objective" in [finding.name for finding in result.findings if not finding.judged]


def test_what_is_another_fault_stays_red() -> None:
    """A term that the loss does not give, a batch that the model writes into."""

    class Writes(nn.Linear):
        """A number is added to its input."""

        def forward(self, x: Tensor) -> Tensor:
            x.add_(1.0)
            return super().forward(x) * torch.nan

    result = run_overfit(Writes(2, 1), (X.clone(), Y), nn.functional.mse_loss, max_steps=5, no_such=0.1, diagnose=False)
    assert [finding.name for finding in result.findings if finding.missed] == ["constant_batch", "finite", "no_such"]
