"""What the tests of parts of a batch are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.run.twin_record import TwinResult

Batch = tuple[Tensor, Tensor]
LABELS = torch.tensor([[1, 2, 3, 4], [1, 2, -100, -100], [4, -100, -100, -100], [0, 1, 2, -100], [3, 3, 1, 0]])


def net(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(6, 16), *more, nn.Tanh(), nn.Linear(16, 5))


def tokens() -> Batch:
    """Five samples of 4, 2, 1, 3 and 4 labelled tokens."""
    return torch.arange(20).reshape(5, 4) % 6, LABELS


def token_loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def twins(model: nn.Module, batch: Any, loss: Any = None, *, twin: str, **more: Any) -> list[TwinResult]:
    """The results of one twin."""
    result = run_overfit(model, batch, loss, twins=twin, max_steps=10, diagnose=False, **more)
    return list(result.record.twins)


class Mixing(nn.Module):
    """Takes the mean of the batch away, in training or always."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0) if self.always or self.training else x


def dense(layer: nn.Module) -> tuple[nn.Module, Batch]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), layer, nn.Linear(8, 1)), (torch.randn(5, 3), torch.randn(5, 1))
