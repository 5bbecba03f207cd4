"""Targets and teachers that are copies of what learns: moved by a gradient of their own, or as they are meant to be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

Batch = dict[str, Tensor]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 48), nn.Tanh(), nn.Linear(48, 8))


def views() -> Batch:
    x = torch.randn(10, 4)
    return {"x": x, "y": x + 0.1 * torch.randn(10, 4)}


class Pair(nn.Module):
    """A student, and beside it what it is to agree with.

    Args:
        name: of the other one.
        grad: whether that is called with gradients.
        copied: whether it begins as the student.
    """

    def __init__(self, name: str, *, grad: bool = True, copied: bool = True) -> None:
        super().__init__()
        self.student, self.predictor, self.name, self.grad = net(), nn.Linear(8, 8), name, grad
        setattr(self, name, copy.deepcopy(self.student) if copied else net())

    def forward(self, x: Tensor, y: Tensor) -> Batch:
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            wanted = F.normalize(getattr(self, self.name)(y), dim=-1)
        return {"loss": 2 - 2 * (F.normalize(self.predictor(self.student(x)), dim=-1) * wanted).sum(-1).mean()}


def learn(model: Any, batch: Batch, **settings: Any) -> OverfitResult:
    settings = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9), "max_steps": 600, **settings}
    return run_overfit(model, batch, objective=0.05, **settings)


def found(result: OverfitResult) -> list[tuple[str, str]]:
    return [(cause.id, cause.where) for cause in result.causes if cause.certain]


@pytest.mark.parametrize("name", ["target", "teacher", "momentum_encoder", "encoder_ema"])
def test_a_copy_that_is_to_follow_learns(name: str) -> None:
    assert found(learn(Pair(name), views())) == [("not-frozen", name)]


def test_declared_where_it_is_meant() -> None:
    assert found(learn(Pair("target"), views(), allow=["not-frozen:target"])) == []


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (lambda: Pair("twin"), {}),
        (lambda: Pair("target", copied=False), {}),
        (lambda: Pair("target", grad=False), {"unused": ["target.*"]}),
    ],
    ids=["no target", "no copy", "no gradient"],
)
def test_what_may_be_in_the_optimizer(model: Any, settings: dict[str, Any]) -> None:
    assert found(learn(model, views(), **settings)) == []


@pytest.mark.parametrize(("trained", "expected"), [(True, [("not-frozen", "target_net")]), (False, [])])
def test_a_target_beside_the_model(trained: bool, expected: list[tuple[str, str]]) -> None:
    values = net()
    target_net = copy.deepcopy(values).requires_grad_(trained)
    learning = [*values.parameters(), *(target_net.parameters() if trained else [])]
    optimizer = torch.optim.Adam(learning, lr=3e-3)

    def step(model: nn.Module, batch: Batch, _: Any) -> Tensor:
        wanted = batch["r"] + 0.5 * target_net(batch["y"]).amax(1)
        loss = F.mse_loss(model(batch["x"])[:, 0], wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for held, p in zip(target_net.parameters(), values.parameters(), strict=True):
                held.lerp_(p, 0.0 if trained else 0.01)
        return loss

    result = learn(values, {**views(), "r": torch.randn(10)}, step=step, optimizer=optimizer)
    assert found(result) == expected
