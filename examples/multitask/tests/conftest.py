from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from perception import PerceptionNet, Trainer
from torch import Tensor


@pytest.fixture
def trainer() -> Trainer:
    """Seeded here: a trainer holds its model, which is thus built before the run."""
    torch.manual_seed(0)
    return Trainer(PerceptionNet())


@pytest.fixture
def overfit_model(trainer: Trainer) -> PerceptionNet:
    return trainer.model


@pytest.fixture
def overfit_step(trainer: Trainer) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """It takes the batch alone: the trainer has the rest."""
    return trainer.train_step


@pytest.fixture
def overfit_batch() -> dict[str, Tensor]:
    """Two frames of 32 pixels, each with a free half."""
    source = torch.Generator().manual_seed(0)
    free = torch.zeros(2, 32, 32)
    free[0, 16:], free[1, :, :12] = 1.0, 1.0
    return {
        "images": torch.rand(2, 3, 32, 32, generator=source),
        "free_space": free,
        "speed": torch.tensor([4.2, 11.9]),
    }
