"""What a run refuses, what a switch leaves off, what starts at zero."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitError, run_overfit
from pytest_overfit.settings.criteria import Criteria, Limit


def test_a_switch_that_is_false_is_off() -> None:
    """Whoever switches it off: there is nothing to evaluate on, and nothing is asked of the loss."""
    calls: list[int] = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        calls.append(1)
        return F.mse_loss(model(batch[0]), batch[1])

    batch = torch.ones(3, 2), torch.zeros(3, 1)
    counts = []
    for off in (False, None):
        calls.clear()
        criteria = Criteria(objective=Limit(100.0), train_val=off, supervised=off)
        torch.manual_seed(0)
        assert run_overfit(nn.Linear(2, 1), batch, loss, criteria=criteria, diagnose=False).passed
        counts.append(len(calls))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"schedule": {"lrr": lambda progress: 0.1}},
            "a schedule of 'lrr'*allowed: what the optimizer has: lr,",
        ),
        ({"schedule": lambda progress: None}, "the schedule of lr: a NoneType*allowed: a number at every step"),
        ({"schedule": torch.optim.lr_scheduler.StepLR}, "schedule: a type where a schedule is wanted"),
        ({"clip_grad_norm": {"nope": 0.5}}, "clip_grad_norm: no trainable parameter belongs to nope*weight, bias"),
        ({"val_data": 3}, "val_data: a int where data is wanted"),
        ({"val_data": iter(())}, "val_data: the loader gives no batch"),
        ({"camera": 0.01}, "the loss gives no term 'camera'*one of the terms that it gives: objective"),
    ],
)
def test_what_cannot_be_done_is_said(asked: dict[str, Any], told: str) -> None:
    """One error that names the argument, and suggests nothing that was tried."""
    with pytest.raises(OverfitError) as error:
        run_overfit(
            nn.Linear(2, 1), (torch.ones(3, 2), torch.ones(3, 1)), F.mse_loss, max_steps=3, hold_steps=1, **asked
        )
    assert fnmatch.fnmatchcase(str(error.value).replace("\n", " "), f"*{told}*")
    assert "did you mean 'camera'" not in str(error.value)


def test_what_starts_at_zero_is_nudged_before_it_is_asked() -> None:
    """A head of zeros hides the input at the start and no longer; the initial weights are back before the run."""
    head = nn.Linear(8, 1)
    nn.init.zeros_(head.weight)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), head)
    batch = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.ones(4, 1)
    record = run_overfit(model, batch, F.mse_loss, max_steps=3, hold_steps=1, diagnose=False).record
    assert record.supervision is not None
    assert record.supervision.answers["0"]["objective"] > 0
    assert record.supervision.unread == ()
    assert not head.weight.any()
