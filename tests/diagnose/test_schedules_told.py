"""A schedule is told by what it makes of the rate; a rate that it sets by itself, as a rate."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.diagnose.trials.candidates import unsteady
from pytest_overfit.run.columns import gone_at
from pytest_overfit.trainer.schedules import Cosine, WarmUpCosine
from tests.support.told import told

STEPS = 200


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 4, generator=generator), torch.randn(8, 1, generator=generator)


def learn(schedule: Callable[[float], float], loss: Callable[..., Tensor] = F.mse_loss) -> OverfitResult:
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.02)  # noqa: E731
    return run_overfit(
        net(), batch(), loss, optimizer=adam, schedule=schedule, objective=0.01, max_steps=STEPS, diagnose_seconds=60
    )


def trials(result: OverfitResult) -> list[str]:
    assert result.evidence is not None
    return [attempt.trial.kind for attempt in result.evidence.attempts]


@pytest.mark.parametrize("end", [0.0, 1e-6])
def test_a_schedule_that_ends_at_once_is_told(end: float) -> None:
    """With the step, and proven by the rate of its peak: nothing else is tried."""
    result = learn(WarmUpCosine(0.02, end, warm_up=0.01, until=0.03))
    assert told(result) == "lr-schedule"
    cause = result.causes[0]
    assert "the schedule ends at step 7 of 200, its rate below 1 % of its peak 0.02" in cause.observed
    assert (cause.strength, cause.certain) == ("proven", True)
    assert trials(result) == ["held rate"]


@pytest.mark.parametrize("schedule", [Cosine(0.02, 0.0), WarmUpCosine(0.02, 1e-6, until=0.6)])
def test_a_decay_that_fits_the_run_is_no_cause(schedule: Callable[[float], float]) -> None:
    assert told(learn(schedule)) == ""


def test_a_loss_that_stood_still_before_the_rate_went_is_no_matter_of_the_schedule() -> None:
    def floor(model: nn.Module, given: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(given[0]), given[1]) + 1.0

    result = learn(WarmUpCosine(0.02, 0.0, warm_up=0.05, until=0.45), floor)
    assert "lr-schedule" not in [cause.id for cause in result.causes]


def test_a_rate_that_the_schedule_sets_is_told_as_a_rate() -> None:
    """What the optimizer was built with is overwritten: nothing is to be held at that."""
    result = learn(WarmUpCosine(2e-5, 6e-7, warm_up=0.05))
    assert told(result) == "lr-low"
    assert [cause.id for cause in result.causes] == ["lr-low"]
    assert trials(result)[0] == "learning rate"


def test_targets_that_the_loss_does_not_compare_as_they_are_stay_as_they_are() -> None:
    """Here as a camera matrix is read: by its angle."""

    def angle(model: nn.Module, given: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(given[0]), torch.atan(50 / given[1]))

    images, _ = batch()
    adam = lambda parameters: torch.optim.Adam(parameters, lr=1e-3)  # noqa: E731
    pixels = 100 + 10 * torch.rand(8, 1)
    result = run_overfit(net(), (images, pixels), angle, optimizer=adam, objective=1e-9, max_steps=20)
    assert "standardised targets" not in trials(result)


def test_beside_a_certain_cause_only_what_was_seen_is_tried() -> None:
    """An optimizer that holds half of the model: that half is given to one, and nothing else is looked for."""
    model = net()
    held = torch.optim.Adam(model[2].parameters(), lr=1e-3)
    result = run_overfit(model, batch(), F.mse_loss, optimizer=held, objective=1e-9, max_steps=60)
    assert told(result) == "optimizer-coverage"
    assert trials(result) == ["all parameters"]
    assert not [each for each in result.not_asked if "trials" in each.question]


def test_a_second_cause_beside_a_certain_one_is_still_found() -> None:
    """A rate that nobody would take."""
    model = net()
    held = torch.optim.Adam([*model.parameters()][:-1], lr=1e-6)
    result = run_overfit(model, batch(), F.mse_loss, optimizer=held, objective=0.01, max_steps=400, diagnose_seconds=60)
    assert {"optimizer-coverage", "lr-low"} <= {cause.id for cause in result.causes}


@pytest.mark.parametrize(
    ("rates", "at"),
    [([1.0, 1.0, 0.0, 0.0, 0.0, 0.0], 2), ([1.0, 1.0, 1.0, 0.0], None), ([0.0] * 6, None), ([], None)],
)
def test_when_a_rate_is_gone(rates: list[float], at: int | None) -> None:
    assert gone_at(rates) == at


def test_a_curve_that_ends_near_zero_is_steady() -> None:
    """Jumps are held against what it fell."""
    assert not unsteady([1.6 * 0.9**step + 0.004 * (-1) ** step for step in range(100)])
    assert unsteady([1.6 + 0.4 * (-1) ** step for step in range(100)])
