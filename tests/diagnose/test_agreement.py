"""The slope of what is reported against the gradient that reaches the optimizer: who disagrees, who only seems to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.agreement import Agreement, Slope
from pytest_overfit.text.numbers import debug_lines

Step = Callable[..., Tensor]


def regression(rows: int = 6) -> dict[str, Tensor]:
    """Sequences of which the first ones count a few places, the others all."""
    source = torch.Generator().manual_seed(0)
    mask = torch.ones(rows, 5)
    mask[: rows // 2, 1:] = 0
    return {
        "x": torch.randn(rows, 5, 4, generator=source),
        "y": torch.randn(rows, 5, generator=source),
        "counts": mask,
    }


def net(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 64), *more, nn.Tanh(), nn.Linear(64, 1))


def accumulating(part_loss: Callable[[Tensor, Tensor, Tensor], Tensor], parts: int = 3) -> Step:
    """A step over micro-batches of two samples; ``part_loss`` has prediction, part and whole."""

    def step(model: nn.Module, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for at in range(parts):
            part = {key: value.chunk(parts)[at] for key, value in batch.items()}
            error = (model(part["x"])[..., 0] - part["y"]).square() * part["counts"]
            loss = part_loss(error, part["counts"], batch["counts"])
            loss.backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        optimizer.step()
        return total

    return step


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def found(result: OverfitResult) -> Agreement:
    """What was measured of the trained model."""
    assert result.evidence is not None
    assert result.evidence.probed.agreement is not None
    return result.evidence.probed.agreement


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
