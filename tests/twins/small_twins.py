"""What the tests of twins are made of: a small batch and model, and the outcomes of their twins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.run.twin_record import TwinResult

Batch = tuple[Tensor, Tensor]


def twins(model: Any, batch: Any, loss: Any = F.mse_loss, **more: Any) -> list[TwinResult]:
    """The results of one twin."""
    result = run_overfit(model, batch, loss, max_steps=10, diagnose=False, **more)
    return list(result.record.twins)


def net(layer: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), layer or nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1))


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 4, generator=generator), torch.randn(6, 1, generator=generator)
