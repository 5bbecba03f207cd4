"""What the config's own items do not ask. Nothing of training/ is importable here, and nothing has to be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch.distributed as dist

CONFIG = "../training/config/single_pair_test.yaml"


@pytest.mark.overfit(config=CONFIG)
def test_a_head_that_died_behind_its_relu_is_found(
    overfit: Callable[..., Any], overfit_model: Any, overfit_loss: Any
) -> None:
    """Fields of view that start below zero never get a gradient through the ReLU behind them."""
    overfit_model.rest[7:] = -1.0
    with pytest.raises(AssertionError, match=r"(?s)why: dead-units.*camera: loss_camera 0\.\d"):
        overfit(overfit_model, loss=overfit_loss)


@pytest.mark.overfit(config=CONFIG, max_steps=5, hold_steps=1)
def test_nothing_of_the_trainer_stays_in_the_process(overfit_result: Any) -> None:
    """After a run there is no module called loss, and no process group."""
    assert overfit_result.record.steps == 5
    assert not overfit_result.passed  # of five steps
    assert not {"data", "loss", "train_utils"} & sys.modules.keys()
    assert not dist.is_initialized()
