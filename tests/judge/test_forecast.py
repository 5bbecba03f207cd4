"""When a falling curve would reach its limit, and that one which has stopped would not."""

from __future__ import annotations

import math
import random

import pytest

from pytest_overfit.judge.forecast import Forecast, forecast, of_limit
from pytest_overfit.settings.criteria import Limit
from tests.support.records import falling


@pytest.mark.parametrize("power", [0.5, 0.8, 1.2])
@pytest.mark.parametrize("steps", [60, 200, 1000])
def test_a_noisy_power_law_reaches_its_limit_within_what_is_foretold(power: float, steps: int) -> None:
    """The step at which the curve without its noise crosses lies between the two ends, or near them."""
    generator = random.Random(steps)
    curve = [(1 + i) ** -power * (1 + 0.1 * generator.gauss(0, 1)) for i in range(steps)]
    found = forecast(curve, (3 * steps) ** -power)
    assert found is not None
    assert found.earliest is not None
    assert found.earliest < 3.3 * steps
    assert found.latest is None or found.latest > 2.7 * steps


def test_a_share_of_every_step_is_foretold_exactly() -> None:
    """An exponential crosses where it crosses."""
    found = forecast([4 * 0.98**step for step in range(100)], 0.01)
    assert found is not None
    assert found.earliest == pytest.approx(math.log(0.01 / 4) / math.log(0.98), abs=2)


def test_a_curve_below_zero_is_followed_along_a_line() -> None:
    """Shares of what is negative say nothing."""
    found = forecast([1 - 0.01 * step for step in range(200)], -3.0)
    assert found is not None
    assert found.earliest == pytest.approx(400, abs=3)
    assert found.latest == pytest.approx(400, abs=3)


@pytest.mark.parametrize(
    "curve",
    [
        falling(4.0, 0.5),
        (4.0,) * 100,
        [0.5 + math.exp(-step / 10) for step in range(200)],
        [1.0 + 0.2 * math.sin(step) for step in range(200)],
        [*(1 / step for step in range(1, 50)), math.nan],
        [1.0, 0.5, 0.1],
    ],
)
def test_nothing_is_foretold_of_what_has_stopped(curve: list[float]) -> None:
    """A plateau, a swing, a NaN, and three steps."""
    assert forecast(curve, 0.01) is None


def test_what_is_too_far_away_has_no_step() -> None:
    """A slow fall is told, and no number is invented for it."""
    found = forecast([1 / (1 + step) ** 0.1 for step in range(100)], 1e-6)
    assert found == Forecast(None, None)
    assert found.text() == "falls, and would not reach its limit in 20 times as many steps"


def test_a_relative_limit_is_that_share_of_the_start() -> None:
    """And where there is no upper limit there is nothing to reach."""
    curve = [7 * 0.97**step for step in range(100)]
    assert of_limit(curve, Limit(0.01, relative=True)) == forecast(curve, 0.07)
    assert of_limit(curve, Limit(above=0.5)) is None
