"""Single columns of an output that cannot move: a field of view behind a closed ReLU beside a pose that learns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit


class Camera(nn.Module):
    """A pose and a field of view from one layer; only the latter is rectified."""

    def __init__(self, bias: float, activate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activate = activate
        self.trunk = nn.Sequential(nn.Linear(4, 32), nn.GELU(), nn.Linear(32, 9))
        with torch.no_grad():
            self.trunk[2].bias[8] = bias  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        pose = self.trunk(x)
        return torch.cat([pose[..., :7], self.activate(pose[..., 7:])], dim=-1)


def learn(model: nn.Module, *, wanted: float = 0.6, limit: float = 0.02) -> OverfitResult:
    torch.manual_seed(0)
    pose = torch.cat([torch.randn(3, 2, 7), torch.tensor([0.5, wanted]).expand(3, 2, 2)], dim=-1)
    batch = (torch.randn(3, 2, 4), pose)
    adam = lambda p: torch.optim.Adam(p, lr=1e-2)  # noqa: E731
    return run_overfit(model, batch, F.l1_loss, optimizer=adam, objective=limit, max_steps=400)


def test_a_shut_column_is_the_first_cause() -> None:
    """Half of the units of its ReLU fire: that share alone would say nothing."""
    torch.manual_seed(0)
    result = learn(Camera(-3.0, F.relu))
    assert result.causes[0].id == "dead-units"
    assert result.causes[0].observed.startswith("column 8 of output is 0 for every sample")


@pytest.mark.parametrize(("bias", "activate"), [(0.5, F.relu), (-3.0, F.softplus)])
def test_a_column_that_can_move_is_none(bias: float, activate: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    assert "dead-units" not in [cause.id for cause in learn(Camera(bias, activate), limit=1e-6).causes]


def test_a_column_that_is_0_in_the_targets_is_none() -> None:
    torch.manual_seed(0)
    assert "dead-units" not in [cause.id for cause in learn(Camera(-3.0, F.relu), wanted=0.0, limit=1e-6).causes]
