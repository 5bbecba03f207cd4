"""What the programs of several libraries are made of: seeded batches, and the losses that users write."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Numbers of a standard normal distribution, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    """Numbers between 0 and 1, the same at every call."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def integers(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    """Whole numbers from ``low`` to ``high - 1``, the same at every call."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def classes(count: int, of: int) -> Tensor:
    """Labels of ``count`` samples, every class in turn."""
    return torch.arange(count) % of


def padding_mask(lengths: list[int], length: int) -> Tensor:
    """1 where a sequence still runs, 0 behind its end."""
    return (torch.arange(length)[None, :] < torch.tensor(lengths)[:, None]).long()


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """The loss of a classifier on a batch of (input, labels)."""
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def squared_error(model: nn.Module, batch: Any) -> Tensor:
    """The loss of a regression on a batch of (input, target)."""
    inputs, target = batch
    return F.mse_loss(model(inputs), target)


def own_loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss that a model of transformers returns when its batch has labels."""
    loss: Tensor = model(**batch).loss
    return loss
