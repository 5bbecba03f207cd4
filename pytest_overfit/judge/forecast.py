"""Does a curve still fall, and when would it reach its limit? Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_overfit.settings.criteria import Limit

LEAST_STEPS = 20
BLOCKS = 10  # of the last half: their medians are what is followed
ENOUGH = 0.05  # of its value that a curve loses in the last half: less is no fall
MOST = 20.0  # times as many steps: beyond that nothing is foretold


@dataclass(frozen=True)
class Forecast:
    """At which step a falling curve would reach its limit; None: not within ``MOST`` times as many steps.

    ``earliest`` if it goes on to lose the same share in every step, ``latest`` if the same share with every doubling
    of the steps, at the flattest slope that its last half allows (two standard errors).

    Example:
        >>> forecast([4 * 0.98**step for step in range(100)], 0.01).text()
        'falls, and would reach its limit at step 300 to 1800'
    """

    earliest: int | None
    latest: int | None

    def text(self) -> str:
        """What it says of the curve, steps rounded to two digits."""
        if self.earliest is None:
            return f"falls, and would not reach its limit in {MOST:.0f} times as many steps"
        first = round_steps(self.earliest)
        last = " or later" if self.latest is None else f" to {round_steps(self.latest)}"
        return f"falls, and would reach its limit at step {first}{last if last != f' to {first}' else ''}"


def forecast(curve: Sequence[float], below: float) -> Forecast | None:
    """When a curve would reach a limit; None where it has stopped, ends in no number or has too few steps.

    It still falls where the medians of ten blocks of its last half lie lowest in the last two, with a slope that is
    larger than twice its standard error, and have lost a twentieth.
    """
    steps, half = len(curve), list(curve)[len(curve) // 2 :]
    if steps < LEAST_STEPS or not all(map(math.isfinite, half)):
        return None
    size = len(half) // BLOCKS
    ends = [steps - size * block for block in range(BLOCKS)][::-1]
    values = [statistics.median(curve[end - size : end]) for end in ends]
    places = [end - (size - 1) / 2 for end in ends]
    stays = values.index(min(values)) < BLOCKS - 2 or values[-1] == values[-2]
    if stays or values[0] - values[-1] < ENOUGH * abs(values[0]):
        return None
    shares = below > 0 and min(values) > 0
    heights, goal = (list(map(math.log, values)), math.log(below)) if shares else (values, below)
    flat = list(map(math.log, places)) if shares else places
    slope, error = _line(flat, heights)
    if not slope + 2 * error < 0:
        return None
    straight, _ = _line(places, heights)
    left = min(0.0, goal - heights[-1])
    earliest, later = places[-1] + left / straight, left / (slope + 2 * error)
    latest = places[-1] * math.exp(min(later, 50.0)) if shares else places[-1] + later
    return Forecast(*(math.ceil(step) if step <= MOST * steps else None for step in (earliest, latest)))


def of_limit(curve: Sequence[float], limit: Limit) -> Forecast | None:
    """The forecast of a curve for its upper limit; None where it has none."""
    ceiling = limit.ceiling(curve) if curve else None
    return None if ceiling is None else forecast(curve, ceiling)


def round_steps(step: int) -> int:
    """A number of steps, rounded up to two digits: 296 is 300."""
    unit: int = 10 ** max(0, len(str(step)) - 2)
    return -(-step // unit) * unit


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The slope of a line of least squares, and its standard error."""
    slope, shift = statistics.linear_regression(x, y)
    middle = statistics.fmean(x)
    rest = sum((b - slope * a - shift) ** 2 for a, b in zip(x, y, strict=True)) / (len(x) - 2)
    return slope, math.sqrt(rest / sum((a - middle) ** 2 for a in x))
