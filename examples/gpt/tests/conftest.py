from __future__ import annotations

from collections.abc import Callable

import pytest
from tinygpt import GPT, configure_optimizer, encode
from torch import Tensor
from torch.optim import Optimizer


@pytest.fixture
def sentence() -> str:
    return "the quick brown fox jumps over the lazy dog."


@pytest.fixture
def overfit_model() -> type[GPT]:
    return GPT


@pytest.fixture
def overfit_batch(sentence: str) -> dict[str, Tensor]:
    """Every character is the target of those before it."""
    tokens = encode(sentence)
    return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}


@pytest.fixture
def overfit_loss() -> Callable[[GPT, dict[str, Tensor]], Tensor | None]:
    return lambda model, batch: model(**batch)[1]


@pytest.fixture
def overfit_optimizer() -> Callable[..., Optimizer]:
    """A factory: it is called with the parameters of the model of each run."""
    return configure_optimizer
