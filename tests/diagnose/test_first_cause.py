"""The first cause is what the measures single out: a slope, a trial that learns, a trial that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.causes.learning_rate import rates
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.rank import find_causes
from pytest_overfit.diagnose.step_trace import Group
from pytest_overfit.diagnose.trial import Attempt, Trial, TrialKind
from pytest_overfit.diagnose.trial_causes import unclaimed
from pytest_overfit.judge.finding import Finding
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Limit

RECORD = RunRecord("net", 0, "cpu", 10, 10, "max_steps", 1.0, {"objective": (1.0,) * 10})
FAILED = Evidence(RECORD, (Finding("objective", False, "", ""),), {"objective": Limit(below=0.0)})


def sequences() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, 4, generator=source), torch.randn(6, 5, 3, generator=source)


def net(*after: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 32), *after, nn.Linear(32, 3))


def stepping(turn: Callable[[Tensor, nn.Module], None]) -> Callable[..., Tensor]:
    """A train step; ``turn`` differentiates."""

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        loss = F.smooth_l1_loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        turn(loss, model)
        optimizer.step()
        return loss.detach()

    return step


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def backward(loss: Tensor, model: nn.Module) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def minus(loss: Tensor, model: nn.Module) -> None:
    (-loss).backward()  # type: ignore[no-untyped-call]


def gradients_turned(loss: Tensor, model: nn.Module) -> None:
    """The loss is differentiated as it is, and its gradients are turned around behind it."""
    loss.backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.neg_()


def one_minus(loss: Tensor, model: nn.Module) -> None:
    """Of a similarity one takes it from one; of a loss this turns it around, by another number than a minus."""
    (1 - 2 * loss).backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("turn", [minus, gradients_turned, one_minus])
def test_a_gradient_that_leads_up_the_objective_is_named(turn: Callable[[Tensor, nn.Module], None]) -> None:
    """Its slope is measured: whoever turned it around, and whatever number was differentiated."""
    result = run_overfit(net(), sequences(), step=stepping(turn), optimizer=adam, max_steps=60, objective=0.01)
    assert not result.passed
    assert result.causes[0].id == "wrong-backward"
    assert result.causes[0].evidence["slope"] < 0 < result.causes[0].evidence["gradient"]


def test_a_reversed_branch_leads_down_the_objective() -> None:
    """A gradient that is turned around in a part on purpose is none: the whole goes down. Nor is a right step."""
    result = run_overfit(net(), sequences(), step=stepping(backward), optimizer=adam, max_steps=400, objective=0.01)
    assert result.passed


class Faint(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@pytest.mark.parametrize("factor", [1e-6, 1e-8])
def test_a_part_that_is_scaled_away_is_proven_by_scaling_it_back(factor: float) -> None:
    """A trial multiplies what it returns: no learning rate that nobody would take stands before that."""
    result = run_overfit(net(Faint(factor)), sequences(), F.mse_loss, optimizer=adam, max_steps=300, objective=0.02)
    assert not result.passed
    first = result.causes[0]
    assert (first.id, first.strength) == ("output-scale", "proven")
    assert "module 3" in first.where
    assert f"{factor:.0e}" in first.advice


def test_a_part_that_learns_its_small_factor_is_none() -> None:
    """A layer scale starts at a millionth, and grows."""

    class LayerScale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.full((32,), 1e-6))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gamma

    result = run_overfit(net(LayerScale()), sequences(), F.mse_loss, optimizer=adam, max_steps=5, objective=0.02)
    assert "output-scale" not in [cause.id for cause in result.causes]


def test_dead_units_of_a_smooth_rectifier_are_named_with_the_bias_that_kills_them() -> None:
    """A GELU far below zero has neither output nor slope, as a ReLU has; the bias is what to change."""
    model = nn.Sequential(nn.Linear(4, 64), nn.GELU(), nn.Linear(64, 3))
    with torch.no_grad():
        model[0].bias.fill_(-60.0)  # type: ignore[operator]
    result = run_overfit(model, sequences(), F.mse_loss, optimizer=adam, max_steps=150, objective=0.05)
    assert result.causes[0].id == "dead-units"
    assert "0.bias" in result.causes[0].advice


def test_what_is_frozen_is_tried_with_the_optimizer_of_the_run() -> None:
    """An AdamW of ours at a thousandth would not get there in these steps; the run's own optimizer does."""
    model = net()
    for parameter in list(model.parameters())[:-2]:
        parameter.requires_grad_(False)
    rate = lambda p: torch.optim.Adam([q for q in p if q.requires_grad], lr=0.03)  # noqa: E731
    result = run_overfit(model, sequences(), F.mse_loss, optimizer=rate, max_steps=120, objective=0.02)
    assert (result.causes[0].id, result.causes[0].strength) == ("frozen", "proven")


def test_chance_inside_of_a_model_that_computes_its_own_loss_is_named() -> None:
    """The trial with the same numbers learns, and no output differs: the loss does."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            made = self.net(x)
            return {"loss": F.mse_loss(made, labels[torch.randperm(len(labels))]), "made": made}

    x, y = sequences()
    result = run_overfit(Own(), {"x": x, "labels": y}, optimizer=adam, max_steps=300, objective=0.05)
    assert not result.passed
    assert result.causes[0].id in ("stochastic", "batch-changes", "target-mismatch")


def tried(
    kind: TrialKind, lowest: float, passed_at: int | None = None, was: float | None = None, value: float | None = None
) -> Attempt:
    return Attempt(Trial(kind, was, value), (1.0, lowest), passed_at, "max_steps")


@pytest.mark.parametrize(
    ("was", "works", "strength"),
    [(2e-3, 2.0, "observed"), (1e-3, 1e-2, "proven"), (2.0, 1e-3, "proven"), (1e-6, 1e-3, "proven")],
)
def test_a_rate_that_nobody_would_take_is_a_way_around(was: float, works: float, strength: str) -> None:
    """From a usual rate to an odd one: it gets around what is wrong. From an odd one to a usual one: that was wrong."""
    group = Group(0, "Adam", 0, 2, ("w", "b"), (was, was), was)
    attempt = tried("learning rate", 0.0, 40, was=was, value=works)
    assert [c.strength for c in rates(replace(FAILED, groups=(group,), attempts=(attempt,)))] == [strength]


@pytest.mark.parametrize(
    ("lowest", "order"), [(0.97, ["term-stuck", "dead-units"]), (0.5, ["dead-units", "term-stuck"])]
)
def test_what_a_trial_takes_away_in_vain_comes_last(lowest: float, order: list[str]) -> None:
    """Fresh weights leave the loss where it was: the units that are dead are not what holds it up."""

    def rule(evidence: Evidence) -> list[Cause]:
        return [Cause("dead-units", "a", "seen", "x", weight=0.94), Cause("term-stuck", "b", "seen", "y", weight=0.6)]

    evidence = replace(FAILED, attempts=(tried("fresh weights", lowest),))
    assert [cause.id for cause in find_causes(evidence, rules=[rule])] == order


def test_a_trial_that_learns_is_a_cause_where_no_rule_rests_on_one() -> None:
    """And is not, where one does; what is certain stays before it."""
    evidence = replace(FAILED, attempts=(tried("same random numbers", 0.0, 30),))
    assert [(c.id, c.strength) for c in unclaimed(evidence, ())] == [("stochastic", "proven")]
    assert list(unclaimed(evidence, [Cause("frozen", "", "", "", "proven")])) == []
    sure = Cause("unused", "", "", "", certain=True)
    assert [c.strength for c in unclaimed(evidence, [sure])] == ["observed"]
    assert list(unclaimed(replace(FAILED, attempts=(tried("same random numbers", 0.2),)), ())) == []


@pytest.mark.parametrize("seconds", [1e-3, 600.0])
@pytest.mark.parametrize("lr", [1e-9, 1e-6])
def test_a_rate_that_nobody_takes_is_named_with_time_for_a_trial_and_without(lr: float, seconds: float) -> None:
    """The first cause is the same on a slow machine; how strong it is, is not."""
    net = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))
    batch = torch.randn(6, 4), torch.arange(6) % 3
    result = run_overfit(net, batch, nn.CrossEntropyLoss(), lr=lr, max_steps=200, diagnose_seconds=seconds)
    first = result.causes[0]
    assert (first.id, first.strength) == ("lr-low", "proven" if seconds > 1 else "observed")
    assert first.advice.startswith("lr=0.0")
