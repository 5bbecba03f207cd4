"""Inputs that chance turns while their targets stay, of models in which every output reads every place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

SOURCE = torch.Generator().manual_seed(11)
IMAGES, DEPTHS = torch.rand(3, 3, 6, 6, generator=SOURCE), torch.rand(3, 1, 6, 6, generator=SOURCE)


class Wide(nn.Module):
    """Every output reads every place; in training an input may be turned, and what comes of it turned back."""

    def __init__(self, back: bool = False, each: bool = False) -> None:
        super().__init__()
        self.back, self.each = back, each
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(108, 128), nn.Tanh(), nn.Linear(128, 36))

    def forward(self, x: Tensor) -> Any:
        turned = torch.rand(len(x) if self.each else 1, 1, 1, 1) < 0.5 * self.training
        y = self.net(torch.where(turned, x.flip(-1), x)).view(-1, 1, 6, 6)
        return torch.where(turned, y.flip(-1), y) if self.back else y


def learn(model: nn.Module, batch: Any, loss: Any = F.mse_loss, **more: Any) -> OverfitResult:
    settings = {"optimizer": lambda p: torch.optim.Adam(p, 3e-3), "objective": 0.005, "max_steps": 600}
    return run_overfit(model, batch, loss, **{**settings, **more})


def certain(result: OverfitResult) -> list[str]:
    return [cause.id for cause in result.causes if cause.certain]


@pytest.mark.parametrize("each", [False, True], ids=["all at once", "every sample"])
def test_an_input_that_chance_turns_alone(each: bool) -> None:
    torch.manual_seed(0)
    result = learn(Wide(each=each), (IMAGES, DEPTHS), stochastic=True)
    assert certain(result)[:1] == ["target-mismatch"]
    assert "one answer was learnt for either" in result.causes[0].observed


@pytest.mark.parametrize("each", [False, True], ids=["all at once", "every sample"])
def test_what_is_turned_back_or_has_no_sides(each: bool) -> None:
    torch.manual_seed(0)
    assert "target-mismatch" not in certain(learn(Wide(back=True, each=each), (IMAGES, DEPTHS), stochastic=True))
    even = DEPTHS + DEPTHS.flip(-1)
    assert "target-mismatch" not in certain(learn(Wide(each=each), (IMAGES, even), stochastic=True))
