"""What a step looks at, and an order that evaluation alone has: told from statistics that settle, and from decoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.questions.own_answers import in_one_order
from tests.support.chinese import assert_chinese


class Normalised(nn.Module):
    """A network with a batch norm, whose pairs of numbers may come back the other way round in evaluation."""

    def __init__(self, turns: bool = False) -> None:
        super().__init__()
        self.turns = turns
        self.net = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Tanh(), nn.Linear(64, 2))

    def forward(self, x: Tensor) -> Tensor:
        out = self.net(x)
        return out.flip(-1) if self.turns and not self.training else out  # type: ignore[no-any-return]


def looking(evaluates: bool) -> Callable[[nn.Module, Any, torch.optim.Optimizer], Tensor]:
    """A step that ends with a look at other data, in evaluation mode or in the one that it trains in."""

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        model.train(not evaluates)
        with torch.no_grad():
            F.mse_loss(model(4 * batch[0] + 3), batch[1])
        model.train()
        return loss.detach()

    return step


def on_pairs(model: nn.Module, **settings: Any) -> OverfitResult:
    source = torch.Generator().manual_seed(4)
    data = torch.randn(8, 4, generator=source), torch.randn(8, 2, generator=source)
    return run_overfit(
        model, data, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), objective=0.02, max_steps=300, **settings
    )


def test_what_a_step_looks_at_in_training_mode_moves_the_statistics() -> None:
    torch.manual_seed(0)
    result = on_pairs(Normalised(), step=looking(evaluates=False))
    assert [cause.id for cause in result.causes if cause.certain] == ["mode-gap"]
    assert "under no_grad" in result.causes[0].observed
    assert_chinese(result.causes[0])
    torch.manual_seed(0)
    assert on_pairs(Normalised(), step=looking(evaluates=True)).passed


def test_an_order_that_evaluation_alone_has_is_no_decoding() -> None:
    torch.manual_seed(0)
    result = on_pairs(Normalised(turns=True), loss=nn.MSELoss())
    assert [cause.id for cause in result.causes if cause.certain][:1] == ["mode-gap"]
    assert on_pairs(Normalised(), loss=nn.MSELoss()).passed


def test_an_order_of_what_has_no_axis_of_samples() -> None:
    """A number, as a module that makes a loss returns it, and a row are in no order of samples."""
    number, rows = torch.tensor(1.0), torch.arange(12.0).view(3, 4)
    assert not in_one_order([number, rows[0]], [number + 1, rows[0].flip(0)])
    assert in_one_order([number, rows], [number + 1, rows.flip(1)])
