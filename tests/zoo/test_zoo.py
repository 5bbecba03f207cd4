"""The zoo is what it says: healthy cases, few declarations, and a bare loop that can tell a failure."""

from __future__ import annotations

import pytest
import torch

from benchmarks.zoo.bare import holds, is_criterion, train
from benchmarks.zoo.case import Case, Setup
from benchmarks.zoo.registry import CASES

DECLARATIONS = {"objective", "unused", "frozen", "stochastic", "max_steps"}
FAST = [case for case in CASES if case.family in ("dense", "finetuning")]


def test_names_are_unique_and_there_are_enough() -> None:
    """The size of the zoo is part of what it proves."""
    assert len({case.name for case in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_declares_little(case: Case) -> None:
    """Every case builds; one declaration at most, or two, which the docstring explains."""
    settings = case.build(0).settings
    assert set(settings) <= DECLARATIONS
    assert len(settings) <= (2 if case.name == "diffusion_resampled_noise" else 1)


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.name)
def test_reaches_its_limit_in_a_bare_loop(case: Case) -> None:
    """Healthy without the plugin; python -m benchmarks.zoo --bare does so for all."""
    assert train(case.build(0)).reached


def test_bare_loop_can_fail() -> None:
    """A model that cannot move does not reach anything."""
    case = next(case for case in CASES if case.name == "mlp_classification")
    healthy = case.build(0)
    still = Setup(healthy.model, healthy.data, healthy.loss, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    curve = train(still, max_steps=10)
    assert not curve.reached
    assert curve.steps == 10
    assert len(set(curve.objective)) == 1


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        ([1.0, *[0.009] * 5], {}, True),
        ([1.0, *[0.009] * 4], {}, False),
        ([*[0.009] * 4, 0.02], {}, False),
        ([1.0, *[-0.6] * 5], {"objective": -0.5}, True),
        ([50.0, *[0.4] * 5], {"objective": {"below": 0.01, "relative": True}}, True),
        ([30.0, *[0.4] * 5], {"objective": {"below": 0.01, "relative": True}}, False),
        ([0.015, 0.003] * 13, {"stochastic": True}, True),
        ([0.003] * 24, {"stochastic": True}, False),
    ],
)
def test_limit_holds(values: list[float], settings: dict[str, object], expected: bool) -> None:
    """Five steps in a row, or the mean of 25 of a random forward pass."""
    assert holds(values, settings) is expected


def test_criteria_are_told_from_losses() -> None:
    """A criterion takes (prediction, target)."""
    assert is_criterion(torch.nn.MSELoss())
    assert is_criterion(torch.nn.functional.cross_entropy)
    assert not is_criterion(lambda model, batch: 0.0)
