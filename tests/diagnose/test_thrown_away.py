"""A call whose result nobody takes, wherever it stands; and calls that are statements for good reasons."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit


class Net(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(6, 48), nn.Linear(48, 3), between
        self.act, self.drop, self.flat = nn.SiLU(), nn.Dropout(0.2), nn.Hardtanh(inplace=True)
        self.statistics, self.seen = nn.BatchNorm1d(48), nn.Identity()
        self.heard: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(self.between(self, h))  # type: ignore[no-any-return]


def module(net: Net, h: Tensor) -> Tensor:
    net.act(h)
    return h


def function(net: Net, h: Tensor) -> Tensor:
    F.normalize(h, dim=-1)
    return h


def method(net: Net, h: Tensor) -> Tensor:
    h.masked_fill(h < 0, 0.0)
    return h


def order(net: Net, h: Tensor) -> Tensor:
    h.flip(0)
    return h


def taken(net: Net, h: Tensor) -> Tensor:
    return net.drop(net.act(F.normalize(h, dim=-1).masked_fill(h < 0, 0.0)))  # type: ignore[no-any-return]


def in_place(net: Net, h: Tensor) -> Tensor:
    h = h * 1.0
    net.flat(h)
    h.add_(0.5)
    torch.mul(h.detach(), 2.0, out=torch.empty(h.shape))
    return h


def same_numbers(net: Net, h: Tensor) -> Tensor:
    h.contiguous()
    h.to(torch.float64)
    h.detach()
    net.seen(h)
    return h


def another_shape(net: Net, h: Tensor) -> Tensor:
    h.mean(0)
    assert F.relu(h).shape == h.shape
    return h


def kept_statistics(net: Net, h: Tensor) -> Tensor:
    net.statistics(h.detach())
    F.batch_norm(h.detach(), net.statistics.running_mean, net.statistics.running_var, training=True)
    return h


def heard_by_a_hook(net: Net, h: Tensor) -> Tensor:
    net.heard.clear()
    handle = net.act.register_forward_hook(lambda module, args, output: net.heard.append(output))
    net.act(h)
    handle.remove()
    return net.heard[0]


def learn(between: Any, **settings: Any) -> list[tuple[str, str]]:
    torch.manual_seed(0)
    batch = torch.randn(9, 6), torch.arange(9) % 3
    result = run_overfit(
        lambda: Net(between),
        batch,
        settings.pop("loss", nn.CrossEntropyLoss()),
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2),
        max_steps=600,
        objective=0.1,
        unused=["statistics.*"],
        **settings,
    )
    return [(cause.id, cause.where) for cause in result.causes if cause.certain]


@pytest.mark.parametrize("between", [module, function, method, order])
def test_a_result_that_nobody_takes(between: Any) -> None:
    ((cause, where),) = learn(between)
    assert (cause, where.rpartition(":")[0]) == ("unused", "module Net, test_thrown_away.py")


def test_one_in_the_loss() -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        output.clamp(-1e-3, 1e-3)
        return F.cross_entropy(output, target)

    ((cause, where),) = learn(taken, loss=loss)
    assert (cause, where.rpartition(":")[0]) == ("unused", "the loss, test_thrown_away.py")


@pytest.mark.parametrize(
    "between",
    [taken, in_place, same_numbers, another_shape, kept_statistics, heard_by_a_hook],
    ids=lambda f: f.__name__,
)
def test_a_statement_that_is_none_of_it(between: Any) -> None:
    assert learn(between, stochastic=True) == []
