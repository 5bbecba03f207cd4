"""One mistake is told as one cause: what comes of it is not told beside it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from tests.support.told import told

Loss = Callable[..., Tensor]
UNIT, BITS, IDS = (torch.arange(8.0) / 8)[:, None], (torch.arange(24).reshape(8, 3) % 2).float(), torch.arange(8) % 3


def net(columns: int, *last: nn.Module) -> nn.Module:
    """A small network with another last layer."""
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, columns), *last)


def again(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A sigmoid of what comes out of one."""
    return F.binary_cross_entropy(model(batch[0]).sigmoid(), batch[1])


@pytest.mark.parametrize(
    ("model", "target", "loss", "cause"),
    [
        (net(3, nn.Sigmoid()), BITS, nn.BCEWithLogitsLoss(), "double-activation"),
        (net(3, nn.Softmax(-1)), IDS, nn.CrossEntropyLoss(), "double-activation"),
        (net(3, nn.Sigmoid()), IDS, nn.CrossEntropyLoss(), "double-activation"),
        (net(3, nn.Sigmoid()), BITS, again, "double-activation"),
        (net(1, nn.Sigmoid(), nn.Sigmoid()), UNIT, nn.MSELoss(), "double-activation"),
        (net(1, nn.Sigmoid()), 1 + 4 * UNIT, nn.MSELoss(), "output-range"),
        (net(1, nn.Sigmoid(), nn.Sigmoid()), 1 + 4 * UNIT, nn.L1Loss(), "output-range"),
        (net(1, nn.Tanh()), 1 + 4 * UNIT, nn.MSELoss(), "output-range"),
        (net(3, nn.Tanh()), BITS, nn.BCEWithLogitsLoss(), "output-range"),
        (net(1, nn.Tanh()), UNIT, nn.MSELoss(), ""),
    ],
)
def test_an_activation_too_many(model: nn.Module, target: Tensor, loss: Loss, cause: str) -> None:
    """The range it has, and that it stands at its bounds, come of it."""
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.01)  # noqa: E731
    result = run_overfit(model, (torch.randn(8, 8), target), loss, optimizer=adam, max_steps=300)
    assert told(result) == cause
    assert len(result.causes) == bool(cause), [each.id for each in result.causes]
