"""Can the network memorise one batch?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from churn import ChurnNet
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


def test_memorises_one_batch(overfit: Callable[..., Any], customers: Batch) -> None:
    """Every default: AdamW, 1000 steps, a loss below 0.01."""
    overfit(ChurnNet, customers, nn.BCEWithLogitsLoss())


def test_a_second_sigmoid_is_found(overfit: Callable[..., Any], customers: Batch) -> None:
    """The loss still falls, and stops far from zero: its logits are caught between 0 and 1."""
    with pytest.raises(AssertionError, match=r"objective: objective 0\.5\d* .*allowed < 0\.01"):
        overfit(lambda: nn.Sequential(ChurnNet(), nn.Sigmoid()), customers, nn.BCEWithLogitsLoss(), max_steps=300)
