"""What the tests of a run are made of: a small batch, model, optimizer, and the run of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

Batch = tuple[Tensor, Tensor]


def batch(targets: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=generator), torch.randn(6, targets, generator=generator)


def net(targets: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, targets))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def run(model: Any = None, data: Any = None, loss: Any = F.mse_loss, **rest: Any) -> OverfitResult:
    rest.setdefault("optimizer", adam)
    return run_overfit(net() if model is None else model, batch() if data is None else data, loss, **rest)
