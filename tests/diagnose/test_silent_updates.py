"""Mistakes of the update and of the state around it that one batch forgives, each beside its sound relative."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from pytest_overfit import OverfitResult, run_overfit
from tests.support.told import told


def learn(model: Any, batch: Any, loss: Any = None, **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    given: dict[str, Any] = {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 400, "objective": 0.05}
    return run_overfit(model, batch, loss, **given | settings)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2))


def rows(count: int = 8) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=source), torch.randn(count, 2, generator=source)


@pytest.mark.parametrize(("share", "cause"), [(1.0, "grad-accumulation"), (1 / 4, ""), (1 / 16, "grad-accumulation")])
def test_micro_batches_are_divided_by_their_number_once(share: float, cause: str) -> None:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for x, y in zip(batch[0].chunk(4), batch[1].chunk(4), strict=True):
            loss = F.mse_loss(model(x), y)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            total += loss.detach() / 4
        optimizer.step()
        return total

    result = learn(net, rows(), step=step)
    assert told(result) == cause
    if cause:
        assert ("add up" if share == 1 else "twice") in result.causes[0].observed
        assert result.causes[0].where == f"test_silent_updates.py:{step.__code__.co_firstlineno + 5}"


def test_two_losses_that_are_reported_as_their_mean_are_no_micro_batches() -> None:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        out = model(batch[0])
        one, other = (F.mse_loss(out[:, at], batch[1][:, at]) for at in (0, 1))
        one.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        other.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return ((one + other) / 2).detach()

    assert told(learn(net, rows(), step=step)) == ""


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_clipped_is_what_the_optimizer_takes(unscaled: bool, whole: bool) -> None:
    """In the units of a scaler all that is clipped comes to nothing, which Adam does not mind."""

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        (loss * 65536.0).backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        if unscaled:
            torch._foreach_div_(grads, 65536.0)
        if whole:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        else:
            total = nn.utils.get_total_norm(grads)
            nn.utils.clip_grads_with_norm_(model.parameters(), 0.1, total)
        if not unscaled:
            torch._foreach_div_(grads, 65536.0)
        optimizer.step()
        return loss.detach()

    result = learn(net, rows(), step=step)
    assert told(result) == ("" if unscaled else "grad-clip")


@pytest.mark.parametrize("shared", [False, True])
def test_a_parameter_is_moved_by_one_optimizer(shared: bool) -> None:
    model = net()
    head = torch.optim.Adam(model[2].parameters(), lr=1e-2)
    rest = torch.optim.Adam(model.parameters() if shared else model[0].parameters(), lr=1e-2)

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        head.zero_grad()
        rest.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        head.step()
        rest.step()
        return loss.detach()

    result = learn(model, rows(), step=step, optimizer=[head, rest])
    assert told(result) == ("step-order" if shared else "")
    if shared:
        assert result.causes[0].where.startswith("2.")


class OnBehalf(Optimizer):
    """Steps by another optimizer of the same parameters, as averages and sharpness-aware ones do."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()


def test_an_optimizer_may_step_by_another_one() -> None:
    optimizer = lambda p: OnBehalf(torch.optim.Adam(p, lr=1e-2))  # noqa: E731
    assert told(learn(net, rows(), lambda model, b: F.mse_loss(model(b[0]), b[1]), optimizer=optimizer)) == ""


class Initialised(nn.Linear):
    """Begins with every call, or with the first one."""

    always = True

    def forward(self, x: Tensor) -> Tensor:
        if self.always or not hasattr(self, "begun"):
            nn.init.zeros_(self.bias)
            self.begun = True
        return super().forward(x)


class Once(Initialised):
    always = False


@pytest.mark.parametrize(("layer", "cause"), [(Initialised, "weights-reset"), (Once, "")])
def test_what_forward_writes_into_a_parameter_is_not_learnt(layer: type[nn.Linear], cause: str) -> None:
    model = lambda: nn.Sequential(layer(6, 32), nn.Tanh(), nn.Linear(32, 2))  # noqa: E731
    result = learn(model, rows(), lambda model, b: F.mse_loss(model(b[0]), b[1]))
    assert told(result) == cause
    if cause:
        assert "0.bias" in result.causes[0].where


def test_weights_that_a_constraint_moves_are_learnt() -> None:
    """A projection leaves something of the update."""

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for p in model.parameters():
                p.clamp_(-1.5, 1.5)
        return loss.detach()

    assert told(learn(net, rows(), step=step)) == ""


class Plain(nn.Module):
    """A linear layer whose weight is a tensor: of no use, or a buffer, or one that is meant."""

    def __init__(self, way: str) -> None:
        super().__init__()
        weight = torch.randn(32, 6) / 3
        if way == "attribute":
            self.weight = weight
        else:
            self.register_buffer("weight", weight)
        self.bias = nn.Parameter(torch.zeros(32))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@pytest.mark.parametrize(("way", "cause"), [("attribute", "unregistered"), ("buffer", "")])
def test_a_weight_beside_a_bias_that_learns_is_a_parameter(way: str, cause: str) -> None:
    model = lambda: nn.Sequential(Plain(way), nn.Tanh(), nn.Linear(32, 2))  # noqa: E731
    result = learn(model, rows(), lambda model, b: F.mse_loss(model(b[0]), b[1]), max_steps=800)
    assert told(result) == cause
    if cause:
        assert result.causes[0].where.startswith("0.weight")


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("reset", "cause"), [(False, ""), (True, "mode-gap")])
def test_running_statistics_settle(reset: bool, cause: str, own: bool) -> None:
    """With steps in which the weights stand still, unless every step sets them back."""

    def loss(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        if reset and torch.is_grad_enabled() and model.training:
            model[1].reset_running_stats()
        return F.mse_loss(model(batch[0] * 3 + 5), batch[1])

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value.detach()

    model = lambda: nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Linear(32, 2))  # noqa: E731
    result = learn(model, rows(), step=step) if own else learn(model, rows(), loss)
    assert told(result) == cause


class Averaged(nn.Module):
    """Swaps a slow average of its weights in for evaluation."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay, self.net = decay, net()
        self.average = [p.detach().clone() for p in self.net.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                for mean, p in zip(self.average, self.net.parameters(), strict=True):
                    mean.lerp_(p, 1 - self.decay)
        return self.net(x)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Averaged:
        if mode != self.training:
            with torch.no_grad():
                for mean, p in zip(self.average, self.net.parameters(), strict=True):
                    kept = p.clone()
                    p.copy_(mean)
                    mean.copy_(kept)
        return super().train(mode)


@pytest.mark.parametrize(("decay", "cause"), [(0.9999, "mode-gap"), (0.0, "")])
def test_an_average_that_evaluation_swaps_in_is_swapped_out_again(decay: float, cause: str) -> None:
    result = learn(lambda: Averaged(decay), rows(), lambda model, b: F.mse_loss(model(b[0]), b[1]))
    assert told(result) == cause
