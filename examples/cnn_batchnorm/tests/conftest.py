from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from defects import CLASSES, DefectNet, classification_terms
from torch import Tensor


@pytest.fixture
def overfit_model() -> type[DefectNet]:
    """A class is a factory: the network is built under the seed of the run."""
    return DefectNet


@pytest.fixture
def overfit_batch() -> tuple[Tensor, Tensor]:
    """Eight images, two of each class."""
    source = torch.Generator().manual_seed(0)
    return torch.rand(8, 3, 32, 32, generator=source), torch.arange(8) % len(CLASSES)


@pytest.fixture
def overfit_loss() -> Callable[..., dict[str, Tensor]]:
    return classification_terms
