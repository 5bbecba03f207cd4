"""Shapes, flags and constants that a mistake may have too, in programs where their effect is none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

N = 9
Batch = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]


def mlp(given: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, 64), nn.Tanh(), nn.Linear(64, made))


def learn(model: Any, batch: Any, loss: Any = None, **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    given: dict[str, Any] = {"objective": 0.1, "optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 800}
    return run_overfit(model, batch, loss, **given | settings)


class Curves(nn.Module):
    """A curve of every sample, at as many times as there are samples."""

    def __init__(self) -> None:
        super().__init__()
        self.rise = mlp(8, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.rise(x) * t  # type: ignore[no-any-return]


def bins(model: nn.Module, b: Batch) -> Tensor:
    return F.cross_entropy(-30 * (model(b["x"]) - b["t"]).square(), b["bin"])


def survival(model: nn.Module, b: Batch) -> Tensor:
    alive = (b["t"] < b["until"][:, None]).float()
    return F.binary_cross_entropy(torch.exp(-F.softplus(model(b["x"])) * b["t"]), alive)


def quadrature(model: nn.Module, b: Batch) -> Tensor:
    decayed = torch.exp(-F.softplus(model(b["x"])) * b["t"]).mean(1)
    return (decayed - b["y"]).square().mean()


def members(model: nn.Module, b: Batch) -> Tensor:
    return F.mse_loss(model(b["x"]).expand(N, 4), b["y"][:, None])


def all_with_all(model: nn.Module, b: Batch) -> Tensor:
    return (model(b["x"]) - b["y"]).square().mean()  # type: ignore[no-any-return]


def by_name(model: nn.Module, b: Batch) -> Tensor:
    return F.mse_loss(model(b["x"]), b["y"])


def table() -> Batch:
    torch.manual_seed(1)
    times, y = torch.linspace(0, 1, N), 0.5 + 0.4 * torch.rand(N)
    bin_of = torch.randperm(N)
    return {"x": torch.randn(N, 8), "t": times, "bin": bin_of, "until": times[bin_of] + 0.05, "y": y}


@pytest.mark.filterwarnings("ignore:Using a (target|input) size")
@pytest.mark.parametrize(
    ("loss", "objective", "found"),
    [
        (bins, 0.8, []),
        (survival, 0.45, []),
        (quadrature, 0.005, []),
        (members, 0.05, []),
        (all_with_all, 0.05, ["broadcast"]),
        (by_name, 0.05, ["broadcast"]),
    ],
)
def test_a_table_of_all_against_all_is_a_mistake_where_no_row_is_held_against_its_own(
    loss: Loss, objective: float, found: list[str]
) -> None:
    result = learn(lambda: mlp(8, 1), table(), loss, objective=objective)
    assert [cause.id for cause in result.causes if cause.certain] == found
    assert result.passed != bool(found), [finding.observed for finding in result.findings if not finding.passed]


def test_an_outer_product_within_a_model() -> None:
    batch = table()
    batch["curves"] = batch["t"] * torch.randn(N, 1)
    result = learn(Curves, batch, lambda m, b: F.mse_loss(m(b["x"], b["t"]), b["curves"]))
    assert result.causes == ()
    assert result.passed


def above_what_is_known(model: nn.Module, b: Batch) -> Tensor:
    """A divergence by a loss of torch's whose second part is that of the targets alone."""
    return F.cross_entropy(model(b["x"]), b["soft"]) + F.mse_loss(b["soft"], torch.full_like(b["soft"], 1 / 3))


def of_what_is_detached(model: nn.Module, b: Batch) -> Tensor:
    out = model(b["x"])
    return F.cross_entropy(out, b["soft"]) + 0.01 * F.mse_loss(out.detach(), torch.zeros_like(out))


@pytest.mark.parametrize(("loss", "found"), [(above_what_is_known, []), (of_what_is_detached, ["term-missing"])])
def test_a_summand_without_a_gradient_is_a_mistake_where_training_moves_it(loss: Loss, found: list[str]) -> None:
    """What the weights do not move may be a part of the loss for its value."""
    torch.manual_seed(2)
    batch = {"x": torch.randn(N, 8), "soft": (2 * torch.randn(N, 3)).softmax(-1)}
    result = learn(lambda: mlp(8, 3), batch, loss, objective=1.2)
    assert [cause.id for cause in result.causes if cause.certain] == found


class Experts(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(8, count), nn.ModuleList(mlp(8, 3) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(-1)
        return torch.stack([weights[:, i : i + 1] * each(x) for i, each in enumerate(self.experts)]).sum(0)


@pytest.mark.parametrize("unused", [["gate.*"], []])
def test_a_mixture_of_one(unused: list[str]) -> None:
    """What its softmax is made of gets no gradient, which is told as such."""
    data = torch.randn(N, 8), torch.arange(N) % 3
    result = learn(lambda: Experts(1), data, nn.CrossEntropyLoss(), unused=unused)
    assert [cause.id for cause in result.causes if cause.certain] == ([] if unused else ["zero-gradient"])
    assert result.passed == bool(unused)


@pytest.mark.parametrize("decays", [False, True])
def test_a_frozen_copy_that_follows_in_the_optimizer_of_all_parameters(decays: bool) -> None:
    """The average moves it, and no step of the optimizer; one that decays what has no gradient does."""

    class Decaying(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.mul_(1 - 1e-3 * decays)
            return super().step(closure)

    model: Any = nn.ModuleDict({"net": mlp(8, 4)})
    model["slow"] = copy.deepcopy(model["net"]).requires_grad_(False)

    def step(model: Any, batch: tuple[Tensor, ...], optimizer: Any) -> Tensor:
        loss = (model["net"](batch[0]) - model["slow"](batch[1])).square().mean()
        loss = loss + F.mse_loss(model["net"](batch[0]), batch[2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(model["slow"].parameters(), model["net"].parameters(), strict=True):
                slow.lerp_(fast, 0.05)
        return loss  # type: ignore[no-any-return]

    x = torch.randn(N, 8)
    optimizer = Decaying(model.parameters(), lr=1e-2)
    result = learn(model, (x, x + 0.05, torch.randn(N, 4)), step=step, optimizer=optimizer)
    assert [cause.id for cause in result.causes if cause.certain] == ["not-frozen"] * decays
    assert result.passed != decays


@pytest.mark.parametrize(("part", "found"), [(2, True), (None, False)])
def test_what_is_frozen_is_told_whether_or_not_a_trial_had_the_time(part: int | None, found: bool) -> None:
    """By a gradient that would arrive; beside another cause that is proven it is none."""
    model = mlp(8, 3)
    if part is not None:
        model[part].requires_grad_(False)
    batch = torch.randn(N, 8), torch.arange(N) % 3
    settings: dict[str, Any] = {"max_steps": 20, "objective": 1e-4, "diagnose_seconds": 1e-3}
    result = learn(model, batch, nn.CrossEntropyLoss(), **settings)
    assert ("frozen" in [cause.id for cause in result.causes]) == found
    declared = learn(model, batch, nn.CrossEntropyLoss(), **settings, frozen=["2.*"] if found else [])
    assert "frozen" not in [cause.id for cause in declared.causes]
