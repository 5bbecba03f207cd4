"""Can the trainer memorise two frames?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from perception import PerceptionNet, Trainer
from torch import nn

Overfit = Callable[..., Any]


@pytest.mark.overfit(objective=0.01, space=0.01, speed=0.01, max_steps=400)
def test_memorises_two_frames(overfit: Overfit, trainer: Trainer) -> None:
    """Each loss on its own too, and nothing of the run is left in the trainer."""
    before = [p.detach().clone() for p in trainer.average.parameters()]
    overfit()
    assert trainer.schedule.last_epoch == 0
    assert all(map(torch.equal, before, trainer.average.parameters()))


def test_a_head_that_is_replaced_after_the_optimizer_was_built_is_found(overfit: Overfit) -> None:
    """The classic of fine-tuning: the new head gets gradients and never moves."""
    torch.manual_seed(0)
    trainer = Trainer(PerceptionNet())
    trainer.model.speed_head = nn.Linear(48, 1)
    with pytest.raises(AssertionError, match=r"(?s)where: speed_head.*gradients: 2 .*: not in the optimizer"):
        overfit(trainer.model, step=trainer.train_step, max_steps=100)
