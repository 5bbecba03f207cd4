"""Learning-rate and weight-decay schedules as functions of training progress in [0, 1].

Ours are constant, cosine, and a linear warm-up before a cosine. Any other is whatever callable a config names; those of
``fvcore.common.param_scheduler``, which VGGT-style configs name, are fvcore's own.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_overfit.errors import ConfigError

Schedule = Callable[[float], float]

FVCORE = "fvcore.common.param_scheduler."
NEARLY_DONE = 1 - 1e-5  # a run asks at step / steps, and some of fvcore's refuse 1, or what rounds up to it
_ALLOWED = "a finite number >= 0"


@dataclass(frozen=True)
class Constant:
    """``value`` at every point of the run."""

    value: float

    def __call__(self, where: float) -> float:
        return self.value


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from ``start_value`` at 0 to ``end_value`` at 1 (Loshchilov & Hutter 2017, eq. 5)."""

    start_value: float
    end_value: float

    def __call__(self, where: float) -> float:
        return self.end_value + (self.start_value - self.end_value) * (1 + math.cos(math.pi * where)) / 2


@dataclass(frozen=True)
class WarmUpCosine:
    """A straight line from ``end_value`` up to ``peak_value``, half a cosine down again, then ``end_value`` to the end.

    Example:
        >>> lr = WarmUpCosine(2e-3, 1e-5, warm_up=0.1, until=0.5)
        >>> lr(0.0), lr(0.1), lr(0.5), lr(0.9)
        (1e-05, 0.002, 1e-05, 1e-05)

    Args:
        warm_up, until: the progress at which the peak, and the end of the cosine, is reached.
    """

    peak_value: float
    end_value: float
    warm_up: float = 0.05
    until: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.warm_up < self.until <= 1:
            raise ConfigError(f"warm_up {self.warm_up} and until {self.until}", allowed="0 < warm_up < until <= 1")

    def __call__(self, where: float) -> float:
        if where <= self.warm_up:
            return self.peak_value * (where / self.warm_up) + self.end_value * (1 - where / self.warm_up)
        span = self.until - self.warm_up
        fall = (where - (self.until - span)) / span  # rounded as in fvcore, so that a run is the same by either
        return Cosine(self.peak_value, self.end_value)(fall) if fall < 1 else self.end_value


def build_schedule(node: Mapping[str, Any], *, where: str) -> Schedule:
    """Instantiates a schedule section, its nested ``schedulers`` included.

    Example:
        >>> lr = build_schedule({"_target_": "pytest_overfit.trainer.schedules.Cosine", "start_value": 1e-3,
        ...                      "end_value": 0.0}, where="optim.options.lr[0].scheduler")
        >>> lr(0.5)
        0.0005

    Raises:
        ConfigError: the ``_target_`` cannot be built or does not give a finite number at 0, at 0.5 and just before 1.
    """

    if str(node["_target_"]).startswith(FVCORE) and importlib.util.find_spec("fvcore") is None:
        found = f"{node['_target_']}, and fvcore is not installed"
        allowed = "a schedule that can be imported, such as pytest_overfit.trainer.schedules.Cosine"
        raise ConfigError(found, where=where, allowed=allowed, hint="pip install fvcore")
    from pytest_overfit.trainer.instantiate import instantiate

    schedule: Schedule = instantiate(node, where=where, plain=True)
    for point in (0.0, 0.5, NEARLY_DONE):
        try:
            value = schedule(point)
        except Exception as error:  # the schedule may be the user's, and fvcore's fail here too, not when built
            found = f"{node['_target_']} raises {type(error).__name__} at progress {point}: {error}"
            raise ConfigError(found, where=where, allowed=_ALLOWED) from error
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise ConfigError(f"{value!r} at progress {point}", where=where, allowed=_ALLOWED)
    return schedule
