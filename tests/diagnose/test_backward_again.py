"""One forward pass has one gradient, in the units of what is reported: whatever is drawn, however often it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pytest_overfit import OverfitResult, run_overfit
from tests.support.chinese import assert_chinese

X = torch.randn(12, 6, generator=torch.Generator().manual_seed(3))
Y = torch.arange(12) % 3


class Net(nn.Module):
    """``how`` it is called from step to step."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.last = nn.Linear(6, 48), nn.Linear(48, 3)
        inner = nn.Linear(48, 48)
        self.body = nn.Sequential(inner, nn.Tanh(), nn.Dropout(0.1))
        if how == "hook in __init__":
            inner.weight.register_hook(lambda g: g / 2)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.body.get_submodule("0").weight  # type: ignore[assignment]
        if self.how == "another hook":
            self.body[1].register_forward_hook(lambda module, given, out: 1.01 * out)
        if torch.is_grad_enabled() and self.how == "another tensor hook":
            first.register_hook(lambda g: g / 2)  # type: ignore[no-untyped-call]
        if torch.is_grad_enabled() and self.how == "another hook that looks":
            first.register_hook(lambda g: None)  # type: ignore[no-untyped-call]
        hidden = self.first(x).tanh()
        if self.how.startswith("checkpoint") and torch.is_grad_enabled():
            keeps = self.how != "checkpoint without its numbers"
            inner = checkpoint(self.body.forward, hidden, use_reentrant=False, preserve_rng_state=keeps)
        else:
            inner = self.body(hidden)
        if torch.is_grad_enabled() and self.how == "hook that is removed":
            handle = first.register_hook(lambda g: g / 2)  # type: ignore[no-untyped-call]
            first.register_post_accumulate_grad_hook(self.removing(handle))  # type: ignore[no-untyped-call]
        return self.last(hidden + inner)  # type: ignore[no-any-return]

    def removing(self, handle: Any) -> Any:
        """Removes a hook, and itself, once a gradient has arrived."""

        def remove(parameter: Tensor) -> None:
            handle.remove()
            parameter._post_accumulate_grad_hooks.clear()

        return remove


def learn(how: str, **given: Any) -> OverfitResult:
    torch.manual_seed(0)
    chosen = {"loss": F.cross_entropy, "stochastic": True, **given}
    return run_overfit(Net(how), (X, Y), optimizer=adam, max_steps=200, objective=0.1, **chosen)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


@pytest.mark.parametrize(
    "how", ["", "checkpoint", "hook in __init__", "hook that is removed", "another hook that looks"]
)
def test_one_gradient_is_no_cause(how: str) -> None:
    result = learn(how)
    assert result.passed, result.causes


@pytest.mark.parametrize(
    ("how", "where", "said"),
    [
        ("checkpoint without its numbers", "module body", "body is computed anew on the way back"),
        ("another tensor hook", "body.0.weight", "of what it is with those of one call"),
        ("another hook", "body.1", "of what it is with those of one call"),
    ],
)
def test_a_gradient_that_is_another_one_each_time(how: str, where: str, said: str) -> None:
    result = learn(how)
    first = result.causes[0]
    assert not result.passed
    assert (first.id, first.where, said in first.observed) == ("wrong-backward", where, True), first
    assert_chinese(first)


def stepping(how: str) -> Any:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        optimizer.zero_grad()
        (100 * loss if how == "by hand" else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        if how == "clipped":
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        if how in ("left", "by hand"):
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        return loss

    return step


@pytest.mark.parametrize(
    ("how", "causes"), [("unscaled", []), ("clipped", []), ("by hand", []), ("left", ["loss-scale"])]
)
def test_gradients_that_a_scaler_has_left_scaled(how: str, causes: list[str]) -> None:
    """What multiplies its loss by hand, as a weight, means it."""
    result = learn("", loss=None, step=stepping(how))
    assert [cause.id for cause in result.causes] == causes
    assert result.passed == (not causes)
    if causes:
        assert "scaler.step(optimizer)" in result.causes[0].advice
        assert "1024" in result.causes[0].observed
        assert_chinese(result.causes[0])
