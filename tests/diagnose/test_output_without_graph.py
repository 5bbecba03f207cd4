"""An output that leaves the graph on its way out of a model whose other outputs, and parameters, learn."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from tests.support.told import told


class Heads(nn.Module):
    """One layer gives a depth and its confidence."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.net = how, nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 8))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        depth, sure = self.net(x).chunk(2, -1)
        if self.how == "detach":
            depth = depth.detach()
        if self.how == "list":
            depth = torch.tensor(depth.tolist())
        if self.how == "no_grad":
            with torch.no_grad():
                depth = self.net(x)[:, :4]
        return {"depth": depth, "sure": 1 + sure.exp()}


def weighed(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    out = model(batch[0])
    return (out["sure"] * (out["depth"] - batch[1]).abs() - 0.2 * out["sure"].log()).mean()  # type: ignore[no-any-return]


def learn(model: nn.Module, loss: Any = weighed) -> OverfitResult:
    source = torch.Generator().manual_seed(1)
    batch = torch.randn(8, 6, generator=source), torch.randn(8, 4, generator=source)
    adam = partial(torch.optim.Adam, lr=0.01)
    return run_overfit(model, batch, loss, optimizer=adam, max_steps=300, objective=0.1)


@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("", ""),
        ("detach", "depth = depth"),
        ("list", "depth = depth"),
        ("no_grad", "with torch.enable_grad():"),
    ],
)
def test_an_output_that_leaves_the_graph(how: str, change: str) -> None:
    result = learn(Heads(how))
    assert told(result) == ("no-gradient" if how else "")
    if how:
        (cause,) = result.causes
        assert cause.where.startswith("output depth, ")
        assert "depth has no graph" in cause.observed
        assert cause.advice.endswith(f": {change}"), cause.advice


def test_an_output_of_a_teacher_is_none_that_has_to_change() -> None:
    """What it is compared with may come down without it."""

    class Taught(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            out = self.net(x)
            return {"out": out, "other": out.detach() + 1}

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        out = model(batch[0])
        return F.mse_loss(out["out"], out["other"]) + F.mse_loss(out["out"], batch[1])

    result = learn(Taught(), loss)
    assert not result.passed
    assert not any("has no graph" in cause.observed for cause in result.causes)
