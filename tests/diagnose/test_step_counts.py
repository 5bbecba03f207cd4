"""Steps of optimizers and gradients, counted: one gradient that is applied twice, and its healthy neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from pytest_overfit import OverfitResult, run_overfit

FEATURES, VALUES = torch.randn(6, 5, generator=torch.Generator().manual_seed(3)), torch.linspace(-1, 1, 6)[:, None]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 24), nn.Tanh(), nn.Linear(24, 1))


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def run(step: Callable[..., Tensor], **more: Any) -> OverfitResult:
    settings = {"optimizer": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), "objective": 0.02, "max_steps": 300}
    return run_overfit(net, (FEATURES, VALUES), step=step, **{**settings, **more})


def ids(result: OverfitResult) -> list[str]:
    return [cause.id for cause in result.causes]


def twice(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    for _ in range(2):
        optimizer.step()
    return loss


def every_other(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
    """The backward pass is left out in every second call, and the step is not."""
    loss = loss_of(model, batch)
    count = getattr(model, "count", 0)
    model.__dict__["count"] = count + 1
    if count % 2 == 0:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


def sharpness_aware(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
    """Up along the gradient, a second gradient there, back, and one step."""
    optimizer.zero_grad(set_to_none=False)
    loss = loss_of(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        moves = [0.01 * g for p in model.parameters() if (g := p.grad) is not None]
        for p, move in zip(model.parameters(), moves, strict=True):
            p.add_(move)
    optimizer.zero_grad(set_to_none=False)
    loss_of(model, batch).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for p, move in zip(model.parameters(), moves, strict=True):
            p.sub_(move)
    optimizer.step()
    return loss


def two_updates(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
    for _ in range(2):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return loss


class Counting(torch.optim.SGD):
    """An optimizer whose step calls that of its superclass."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def alone(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


@pytest.mark.parametrize("step", [twice, every_other])
def test_one_gradient_is_applied_twice(step: Callable[..., Tensor]) -> None:
    result = run(step)
    assert not result.passed
    assert result.causes[0].id == "step-order"
    assert result.causes[0].certain
    assert "apply the very gradient" in result.causes[0].observed


@pytest.mark.parametrize("step", [sharpness_aware, two_updates, alone])
def test_every_step_has_a_gradient_of_its_own(step: Callable[..., Tensor]) -> None:
    result = run(step)
    assert result.passed, result.failure_text()
    assert ids(result) == []


def test_a_step_that_calls_that_of_its_superclass_is_one() -> None:
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)  # whose class is heard from now on, too
    result = run(alone, optimizer=lambda p: Counting(p, 0.1, momentum=0.9))
    assert result.passed, result.failure_text()
    assert ids(result) == []


def test_a_closure_makes_its_own_gradients() -> None:
    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        return optimizer.step(closure)  # type: ignore[arg-type,return-value]

    result = run(step, optimizer=lambda p: torch.optim.LBFGS(p, 0.5, max_iter=2), max_steps=100)
    assert result.passed, result.failure_text()
    assert ids(result) == []


def clipping(where: str, most: float = 0.05) -> Callable[..., Tensor]:
    """A step that clips before, between or after backward and update."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if where == "between":
            nn.utils.clip_grad_norm_(model.parameters(), most)
        optimizer.step()
        if where == "after":
            nn.utils.clip_grad_norm_(model.parameters(), most)
        return loss

    return step


def test_gradients_that_are_clipped_once_they_are_applied() -> None:
    result = run(clipping("after"))
    assert ids(result) == ["step-order"]
    assert "are clipped to 0.05 after the optimizer has applied them" in result.causes[0].observed


@pytest.mark.parametrize("step", [clipping("between", 5.0), clipping("after", 1e3)], ids=["in time", "never reached"])
def test_clipping_that_is_in_time_or_has_nothing_to_do(step: Callable[..., Tensor]) -> None:
    assert ids(run(step)) == []
