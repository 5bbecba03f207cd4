"""Designs that are meant and look like a mistake, each beside the mistake that its rule is for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_overfit import OverfitResult, run_overfit


def data(samples: int = 8) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.randn(samples, 8, generator=source), torch.randint(0, 3, (samples,), generator=source)


def learn(model: Any, batch: Any, loss: Any = None, *, rate: float = 1e-2, **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, lr=rate), "max_steps": 400, **settings}
    return run_overfit(model, batch, loss or (None if "step" in settings else nn.CrossEntropyLoss()), **settings)


def certain(result: OverfitResult) -> list[str]:
    """The ids of what turns a run red."""
    return [cause.id for cause in result.causes if cause.certain]


def net(width: int = 32, out: int = 3, given: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, width), nn.Tanh(), nn.Linear(width, out))


@pytest.mark.parametrize(("rate", "found"), [(1e-2, []), (3.0, ["lr-group"])])
def test_a_new_head_grows_from_next_to_nothing(rate: float, found: list[str]) -> None:
    """At a hundred times the rate of its backbone and more: fine-tuning. What is wild moves any weight."""
    torch.manual_seed(0)
    model = net(64)
    nn.init.normal_(model[2].weight, std=1e-3)
    groups = [{"params": model[0].parameters(), "lr": 2e-5}, {"params": model[2].parameters(), "lr": rate}]
    assert certain(learn(model, data(), optimizer=torch.optim.Adam(groups))) == found
