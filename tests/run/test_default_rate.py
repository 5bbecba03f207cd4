"""`lr` is a setting of the default optimizer, and of no other one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pytest_overfit import OverfitError, run_overfit

BATCH = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))


@pytest.mark.parametrize("lr", [0.003, 0.02])
def test_lr_is_that_of_the_default_optimizer(lr: float) -> None:
    result = run_overfit(net, BATCH, nn.CrossEntropyLoss(), lr=lr, max_steps=20)
    assert result.evidence is not None
    assert [group.initial_rate for group in result.evidence.groups] == [lr]


def test_an_optimizer_that_is_given_has_its_own() -> None:
    with pytest.raises(OverfitError, match=r"lr: 0\.01 beside an optimizer that is given"):
        run_overfit(net, BATCH, nn.CrossEntropyLoss(), optimizer=torch.optim.Adam, lr=0.01)


def test_a_step_that_steps_optimizers_of_its_own_has_too() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())

    def step(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    with pytest.raises(OverfitError, match=r"lr: 0\.01 beside a step with optimizers of its own"):
        run_overfit(model, BATCH, step=step, lr=0.01)
