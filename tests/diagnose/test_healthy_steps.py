"""Train steps that are meant and look like a mistake, each beside the mistake that its rule is for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.diagnose.test_healthy_designs import certain, data, learn, net


@pytest.mark.parametrize("copies", ["moved to", "by their gradients"])
@pytest.mark.parametrize(("follows", "found"), [(True, []), (False, ["wrong-model"])])
def test_an_inner_loop_trains_a_copy(copies: str, follows: bool, found: list[str]) -> None:
    """The model follows the copy: a meta-learner. One that does not is never trained."""

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        fast = copy.deepcopy(model)
        inner = torch.optim.SGD(fast.parameters(), lr=0.1)
        for _ in range(2):
            inner.zero_grad()
            loss = F.cross_entropy(fast(batch[0]), batch[1])
            loss.backward()  # type: ignore[no-untyped-call]
            inner.step()
        optimizer.zero_grad()
        for p, q in zip(model.parameters(), fast.parameters(), strict=True):
            p.grad = p.data - q.data if copies == "moved to" else q.grad
        if follows:
            optimizer.step()
        return F.cross_entropy(model(batch[0]), batch[1])

    result = learn(net, data(), step=step, optimizer=lambda p: torch.optim.SGD(p, lr=1.0), max_steps=300)
    assert (not result.passed, certain(result)[:1]) == (not follows, found)


@pytest.mark.parametrize(("kept", "found"), [(0.9, []), (1.0, ["grad-accumulation"])])
def test_a_gradient_that_is_kept_on_purpose(kept: float, found: list[str]) -> None:
    """Momentum by hand: somebody writes to what is there."""

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        for p in model.parameters():
            if p.grad is not None and kept < 1:
                p.grad.mul_(kept)
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    rate = lambda p: torch.optim.SGD(p, lr=0.03)  # noqa: E731
    assert certain(learn(net, data(), step=step, optimizer=rate, max_steps=300))[:1] == found


@pytest.mark.parametrize(("begins", "found"), [(80, []), (10**6, ["ema"])])
def test_an_average_that_begins_later(begins: int, found: list[str]) -> None:
    """The run is over before; a few steps more, and it follows."""
    model = net()
    shadow, count = copy.deepcopy(model).requires_grad_(False), [0]

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        count[0] += 1
        for own, theirs in zip(shadow.parameters(), model.parameters(), strict=True):
            if count[0] >= begins:
                own.lerp_(theirs.detach(), 0.1)
        return loss

    result = learn(model, data(), step=step, objective=0.1)
    assert result.record.steps < 80
    assert certain(result) == found
