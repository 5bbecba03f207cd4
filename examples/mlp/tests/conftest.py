from __future__ import annotations

import pytest
import torch
from churn import FEATURES
from torch import Tensor


@pytest.fixture
def customers() -> tuple[Tensor, Tensor]:
    """Features and labels of sixteen customers, half of whom left."""
    source = torch.Generator().manual_seed(0)
    return torch.randn(16, FEATURES, generator=source), torch.tensor([0.0, 1.0]).repeat(8)
