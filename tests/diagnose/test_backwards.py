"""Backward passes that are not those of their forward pass, and losses that are differentiated twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from tests.diagnose.small_agreements import adam, net, regression


class Swish(torch.autograd.Function):
    """x * sigmoid(x), whose backward may forget a factor, or what it is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fault: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.fault = fault
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        slope = s * (1 + x * (1 - s))
        wrong = {"sign": -slope, "blind": slope / grads[0].clamp(min=1e-30, max=1e-30) * 1e-30}
        gradient = wrong.get(ctx.fault, slope)
        return (gradient if ctx.fault == "blind" else gradient * grads[0]), None


class Rounded(torch.autograd.Function):
    """Straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (4 * x).round() / 4

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0]


class Reversed(torch.autograd.Function):
    """A gradient that is turned around on purpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return -grads[0]


class Through(nn.Module):
    """A layer of a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def few_steps(function: Callable[[Tensor], Tensor], **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), Through(function), nn.Linear(32, 3))
    batch = torch.randn(6, 4), torch.randn(6, 3)
    return run_overfit(model, batch, F.mse_loss, optimizer=adam, **{"max_steps": 30, **settings})


def test_a_backward_that_is_not_that_of_its_forward_is_named() -> None:
    """A turned sign, in a run without a step of its own."""
    result = few_steps(lambda x: Swish.apply(x, "sign"))  # type: ignore[no-untyped-call]
    assert result.causes[0].id == "wrong-backward"
    assert result.causes[0].where == "Swish"
    assert "gradcheck" in result.causes[0].advice


@pytest.mark.parametrize("function", [lambda x: Swish.apply(x, ""), Rounded.apply, Reversed.apply])  # type: ignore[no-untyped-call]
def test_functions_that_are_right_or_meant_are_no_cause(function: Callable[[Tensor], Tensor]) -> None:
    """Right, straight through, turned around: of a run that fails for want of steps none of them is the cause."""
    result = few_steps(function)
    assert not result.passed
    assert "wrong-backward" not in [cause.id for cause in result.causes]


def twice(loss: Tensor, aside: Tensor) -> None:
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    loss.backward()  # type: ignore[no-untyped-call]


def in_a_sum(loss: Tensor, aside: Tensor) -> None:
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    (loss + aside).backward()  # type: ignore[no-untyped-call]


def each(loss: Tensor, aside: Tensor) -> None:
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    aside.backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("backwards", "right"), [(twice, False), (in_a_sum, False), (each, True)])
@pytest.mark.parametrize("anew", [False, True])
def test_a_loss_that_is_differentiated_twice(
    backwards: Callable[[Tensor, Tensor], None], right: bool, anew: bool
) -> None:
    """Adam hides the factor; two losses of one graph are two, and gradients of zero in between count once."""

    def step(model: nn.Module, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        output = model(batch["x"])[..., 0]
        loss, aside = (output - batch["y"]).square().mean(), 0.1 * output.square().mean()
        optimizer.zero_grad()
        if anew:
            loss.backward(retain_graph=True)
            optimizer.zero_grad()
            (loss + aside).backward()
        else:
            backwards(loss, aside)
        optimizer.step()
        reported: Tensor = loss if backwards is twice and not anew else loss + aside
        return reported.detach()

    result = run_overfit(net(), regression(), step=step, optimizer=adam, objective=0.3, max_steps=400)
    assert [cause.id for cause in result.causes] == ([] if right or anew else ["wrong-backward"])
    assert result.passed == (right or anew)
