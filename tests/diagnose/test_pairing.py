"""Predictions of one sample held against the answer of another are found, and what only looks like it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.questions.taught_rows import measure_pairs
from pytest_overfit.run.task import Heard

Batch = dict[str, Tensor]
ORDER = torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])


def data(samples: int = 8) -> Batch:
    source = torch.Generator().manual_seed(1)
    x, y = torch.randn(samples, 5, generator=source), torch.randn(samples, 3, generator=source)
    return {"x": x, "y": y}


def in_order(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch["x"]), batch["y"])


def sorted_inputs(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch["x"][ORDER]), batch["y"])


def sorted_outputs(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch["x"])[ORDER], batch["y"])


def undone(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch["x"][ORDER])[ORDER.argsort()], batch["y"])


def both_sorted(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch["x"][ORDER]), batch["y"][ORDER])


def matched(model: nn.Module, batch: Batch) -> Tensor:
    """Chamfer distance: whichever target is nearest."""
    gaps = torch.cdist(model(batch["x"][ORDER]), batch["y"])
    return gaps.min(0).values.square().mean() + gaps.min(1).values.square().mean()


def against_rolled(model: nn.Module, batch: Batch) -> Tensor:
    """A distance to the next sample: every answer is read by two rows."""
    y, x = batch["y"], model(batch["x"])
    return F.mse_loss(x - x.roll(1, 0), y - y.roll(1, 0))


def mixed_up(model: nn.Module, batch: Batch) -> Tensor:
    """Mixup: a prediction answers to two targets."""
    x, y = batch["x"], batch["y"]
    prediction = model(0.7 * x + 0.3 * x[ORDER])
    return 0.7 * F.mse_loss(prediction, y) + 0.3 * F.mse_loss(prediction, y[ORDER])


def learn(loss: Callable[[nn.Module, Batch], Tensor]) -> OverfitResult:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 3))
    return run_overfit(model, data(), loss, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), max_steps=400)


@pytest.mark.parametrize("loss", [sorted_inputs, sorted_outputs])
def test_rows_in_another_order_are_found(loss: Callable[[nn.Module, Batch], Tensor]) -> None:
    """The limit is met, and the run fails for it."""
    result = learn(loss)
    assert result.finding("objective").passed
    assert not result.passed
    assert [cause.id for cause in result.causes][:1] == ["target-mismatch"]


@pytest.mark.parametrize("loss", [in_order, undone, both_sorted, against_rolled])
def test_rows_in_order_are_not_accused(loss: Callable[[nn.Module, Batch], Tensor]) -> None:
    """Sorting that is undone, or done to both, is none."""
    assert learn(loss).causes == ()


@pytest.mark.parametrize("loss", [matched, mixed_up])
def test_targets_that_may_belong_to_any_row_are_not_held_against_it(
    loss: Callable[[nn.Module, Batch], Tensor],
) -> None:
    """A matching, a mixture."""
    assert "target-mismatch" not in {cause.id for cause in learn(loss).causes}


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_two_samples_are_enough(samples: int) -> None:
    model, order = nn.Linear(5, 3), torch.arange(samples).flip(0)

    def forward(batch: Batch) -> tuple[Heard, dict[str, Tensor]]:
        output = model(batch["x"])
        return Heard([("output", output)]), {"objective": F.mse_loss(output[order], batch["y"])}

    pairs = measure_pairs(forward, forward, data(samples), samples, [], in_order=True)
    assert pairs is not None
    assert pairs.wrong == tuple((i, samples - 1 - i) for i in range(samples) if 2 * i != samples - 1)
