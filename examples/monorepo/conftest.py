from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def overfit_optimizer() -> Callable[[Iterable[Tensor]], torch.optim.Optimizer]:
    """What all teams train with."""
    return lambda parameters: torch.optim.Adam(parameters, lr=3e-3)


@pytest.fixture
def source() -> torch.Generator:
    """Where the tests' batches come from."""
    return torch.Generator().manual_seed(0)
