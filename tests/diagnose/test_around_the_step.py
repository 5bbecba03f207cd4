"""What a step does beside its three calls, and what an optimizer brings along: the cause is that, and not the order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.result import OverfitResult
from tests.support.chinese import assert_chinese

STEPS = 200


def pair() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.randn(8, 6, generator=source), torch.randn(8, 3, generator=source)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 3))


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, after: Any = None) -> OverfitResult:
    """A step in order, with ``after(model, optimizer)`` between its backward pass and its update."""

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        if after is not None:
            after(model, optimizer)
        optimizer.step()
        return loss.detach()

    return run_overfit(model, pair(), step=step, optimizer=optimizer, max_steps=STEPS, objective=0.01)


def first(result: OverfitResult) -> tuple[str, str]:
    return (result.causes[0].id, result.causes[0].strength) if result.causes else ("", "")


def test_a_schedule_that_the_first_step_builds_is_not_the_order_of_the_step() -> None:
    """The rate is what was set until the scheduler is there, and hardly anything from then on."""
    built: list[torch.optim.lr_scheduler.LRScheduler] = []

    def warm_up(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if not built or built[0].optimizer is not optimizer:
            built[:] = [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda count: (count + 1) / (1000 * STEPS))]
        else:
            built[0].step()

    model = net()
    result = trained(model, torch.optim.Adam(model.parameters(), lr=3e-3), warm_up)
    assert first(result) == ("lr-schedule", "proven")


def test_what_a_step_in_order_does_beside_it_is_not_called_its_order() -> None:
    def noise(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for each in model.parameters():
            each.grad = torch.randn_like(each)

    model = net()
    result = trained(model, torch.optim.Adam(model.parameters(), lr=3e-3), noise)
    assert not result.passed
    assert "called in order" in next(cause.observed for cause in result.causes if cause.id == "step-order")
    assert all(cause.strength == "observed" for cause in result.causes if cause.id == "step-order")


@pytest.mark.parametrize("moment", [1e6, 0.0])
def test_moments_of_another_run_are_named_where_a_new_optimizer_learns(moment: float) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for each in model.parameters():
        optimizer.state[each] = {
            "step": torch.tensor(1000.0),
            "exp_avg": torch.zeros_like(each),
            "exp_avg_sq": torch.full_like(each, moment),
        }
    result = trained(model, optimizer)
    assert result.passed == (moment == 0)
    if moment:
        assert first(result) == ("optimizer-state", "proven")
        assert "1000 earlier steps" in result.causes[0].observed
        assert_chinese(result.causes[0])
    else:
        assert not result.causes
