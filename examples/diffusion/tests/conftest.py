from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor
from torch.optim import Adam


@pytest.fixture
def image() -> Tensor:
    """One image (1, 1, 8, 8) of about unit variance."""
    return torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def overfit_batch(image: Tensor) -> Tensor:
    """The one image sixty-four times: as many times and draws of noise per step."""
    return image.repeat(64, 1, 1, 1)


@pytest.fixture
def overfit_optimizer() -> Callable[[Iterable[Tensor]], Adam]:
    return lambda parameters: Adam(parameters, lr=2e-3)
