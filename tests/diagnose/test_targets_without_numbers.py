"""Samples whose targets are NaN, which a loss leaves out; and targets of which parts are missing, or a mask says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from tests.support.told import told

SOURCE = torch.Generator().manual_seed(1)
X, Y = torch.randn(8, 6, generator=SOURCE), torch.randn(8, 2, generator=SOURCE)
Loss = Callable[[Tensor, Tensor], Tensor]


def left_out(out: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(out, torch.where(target.isnan(), out.detach(), target))


def chosen(out: Tensor, target: Tensor) -> Tensor:
    there = ~target.isnan()
    return F.mse_loss(out[there], target[there])


def learn(rows: Any, loss: Loss, **more: Tensor) -> str:
    target = Y.clone()
    target[rows] = float("nan")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 2))
    batch = {"x": X, "y": target, **more}
    told_of = run_overfit(
        model,
        batch,
        lambda m, b: loss(m(b["x"]), b["y"]),
        lr=1e-2,
        objective=0.05,
        max_steps=600,
        allow=["input-ignored"],
    )
    return told(told_of)


@pytest.mark.parametrize("loss", [left_out, chosen])
@pytest.mark.parametrize("rows", [[7], [0, 3]])
def test_samples_whose_target_is_no_number(rows: list[int], loss: Loss) -> None:
    assert learn(rows, loss) == "nonfinite-data"


@pytest.mark.parametrize("loss", [left_out, chosen])
@pytest.mark.parametrize("rows", [([1, 3, 5], [0, 1, 0]), ([1, 3, 3, 5], [0, 0, 1, 0])])
def test_parts_of_a_target_may_be_missing(rows: Any, loss: Loss) -> None:
    """And by chance all of one sample's."""
    assert learn(rows, loss) == ""


def test_a_mask_of_the_batch_declares_them() -> None:
    assert learn([7], chosen, measured=torch.arange(8) < 7) == ""
