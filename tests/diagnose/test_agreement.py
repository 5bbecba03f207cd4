"""The slope of what is reported against the gradient that reaches the optimizer: who disagrees, who only seems to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.agreement import Agreement, Slope
from pytest_overfit.text.numbers import debug_lines
from tests.diagnose.small_agreements import accumulating, adam, found, net, regression


def test_means_of_unequal_micro_batches_weigh_samples_unequally() -> None:
    """A masked regression by hand: the run learns, and is red; divided by what counts in the whole batch it passes."""
    wrong = accumulating(lambda error, mask, _: error.sum() / mask.sum() / 3)
    result = run_overfit(net(), regression(), step=wrong, optimizer=adam)
    assert [cause.id for cause in result.causes] == ["grad-accumulation"]
    assert result.causes[0].certain
    assert not result.passed
    assert found(result).agrees
    assert found(result).backwards == 3
    right = accumulating(lambda error, _, whole: error.sum() / whole.sum())
    result = run_overfit(net(), regression(), step=right, optimizer=adam)
    assert result.passed
    assert found(result).regrouped == pytest.approx(1.0, abs=1e-3)


def test_micro_batches_of_equal_counts_are_no_fault() -> None:
    """Every sample counts as much as every other."""
    batch = {**regression(), "counts": torch.ones(6, 5)}
    step = accumulating(lambda error, mask, _: error.sum() / mask.sum() / 3)
    assert run_overfit(net(), batch, step=step, optimizer=adam).passed


def test_samples_that_see_each_other_are_not_asked() -> None:
    """Batch norm in the model, a contrast in the loss: another micro-batch is another gradient, and nobody's fault."""

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(64)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]

    step = accumulating(lambda error, mask, _: error.sum() / mask.sum() / 3)
    result = run_overfit(net(Norm()), regression(), step=step, optimizer=adam, max_steps=60)
    assert found(result).regrouped is None

    def contrast(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for x, y in zip(batch[0].chunk(2), batch[1].chunk(2), strict=True):
            logits = F.normalize(model(x), dim=1) @ F.normalize(y, dim=1).T / 0.1
            loss = F.cross_entropy(logits, torch.arange(len(x))) / 2
            loss.backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        optimizer.step()
        return total

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 8))
    result = run_overfit(model, (torch.randn(8, 4), torch.randn(8, 8)), step=contrast, optimizer=adam)
    assert found(result).backwards == 2
    assert found(result).regrouped is None
    assert result.passed


def scaled(unscaled: bool, fault: str = "") -> OverfitResult:
    """A loop with a GradScaler, whose optimizer steps through it or past it."""
    scaler = torch.amp.GradScaler("cpu")

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if unscaled:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        return loss

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))
    data = torch.randn(6, 4), torch.randn(6, 3)
    return run_overfit(model, data, step=step, optimizer=lambda p: torch.optim.SGD(p, lr=1e-6), max_steps=60)


def test_the_units_of_a_scaler_are_understood() -> None:
    """A right loop agrees, and its floor is in the units of its loss; one that never unscales has a factor."""
    right, wrong = scaled(True), scaled(False)
    assert found(right).slopes[0].agrees
    assert any(line.startswith("gradient that reaches SGD: ") for line in debug_lines(right))
    assert right.causes[0].id == "lr-low"
    assert "loss-scale" not in [cause.id for cause in right.causes]
    assert right.evidence is not None
    floor = right.evidence.probed.floor
    assert floor is not None
    assert floor.start < 10
    assert wrong.evidence is not None
    start = wrong.evidence.agreement
    assert start is not None
    assert start.factor == pytest.approx(65536, rel=0.3)


def test_a_step_that_follows_another_loss_is_named_by_its_slope() -> None:
    """The loss of other rows is differentiated; through a detached copy of the right loss nothing says so."""

    def follows(wanted: Callable[[Tensor, Tensor], Tensor]) -> OverfitResult:
        def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
            optimizer.zero_grad()
            predicted = model(batch[0])
            wanted(predicted, batch[1]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            return F.mse_loss(predicted.detach(), batch[1])

        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))
        return run_overfit(model, (torch.randn(6, 4), torch.randn(6, 3)), step=step, optimizer=adam, max_steps=60)

    wrong = follows(lambda predicted, y: F.mse_loss(predicted, y.flip(0)))
    assert wrong.causes[0].id == "wrong-backward"
    assert found(follows(F.mse_loss)).agrees


def test_a_term_that_one_module_is_not_trained_for_is_seen() -> None:
    """A small term of a head of its own is reported and not differentiated: along the whole gradient all seems well."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.large, self.small = nn.Linear(4, 64), nn.Linear(64, 3), nn.Linear(64, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.trunk(x).tanh()
            return self.large(hidden), self.small(hidden)

    def ask(whole: bool) -> OverfitResult:
        def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
            optimizer.zero_grad()
            large, small = model(batch[0])
            first, second = F.mse_loss(large, batch[1]), 0.02 * F.mse_loss(small, batch[1][:, :1])
            (first + second if whole else first).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            return (first + second).detach()

        torch.manual_seed(0)
        data = torch.randn(6, 4), torch.randn(6, 3)
        return run_overfit(Heads, data, step=step, optimizer=adam, max_steps=60, objective=1e-9)

    for whole in (True, False):
        evidence = ask(whole).evidence
        assert evidence is not None
        start = evidence.probed.agreement_at_start
        assert start is not None
        assert start.slopes[0].agrees
        assert start.agrees == whole


def test_asking_moves_no_schedule_on() -> None:
    """What a step counts by itself, its schedule and its optimizer are after the run as without a diagnosis."""

    def ends(diagnose: bool) -> tuple[float, int, int]:
        model, taken = nn.Linear(4, 3), {"steps": 0}
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

        def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            optimizer.zero_grad()
            loss = F.mse_loss(model(batch[0]), batch[1])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            taken["steps"] += 1
            return loss

        torch.manual_seed(0)
        data = torch.randn(6, 4), torch.randn(6, 3)
        run_overfit(
            model, data, step=step, optimizer=optimizer, max_steps=5, keep_trained=True, diagnose=diagnose,
            defects=diagnose, objective=1e9,
        )  # fmt: skip
        return optimizer.param_groups[0]["lr"], schedule.last_epoch, len(optimizer.state)

    assert ends(True) == ends(False)


def test_ratios_of_slopes() -> None:
    """What agrees, what is flat, and by which factor a gradient is off."""
    assert Slope("SGD", 1.0, 0.9).agrees
    assert not Slope("SGD", 1.0, -1.0).agrees
    assert Slope("round", 1.0, 0.001).is_flat
    assert Agreement(slopes=(Slope("SGD", 6.0, 2.0),)).factor == 3.0
    assert Agreement(slopes=(Slope("SGD", 6.0, 2.0), Slope("Adam", 1.0, 1.0))).agrees
    assert Agreement().agrees
    assert not Agreement(regrouped=1.05).depends_on_groups
