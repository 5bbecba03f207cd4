"""Learning-rate and weight-decay schedules as functions of training progress in [0, 1].

The class names are those of ``fvcore.common.param_scheduler``, which VGGT-style configs name as ``_target_``: where
fvcore is not installed its names are served from here.
"""

from __future__ import annotations

import bisect
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pytest_overfit.errors import ConfigError

Schedule = Callable[[float], float]

FVCORE = "fvcore.common.param_scheduler."
EPSILON = 1e-6  # fvcore's own: a step that begins an interval belongs to it, whatever the rounding of its progress
NEARLY_DONE = 1 - 10 * EPSILON  # a run asks at step / steps, and some of fvcore's refuse 1, or what rounds up to it


@dataclass(frozen=True)
class ConstantParamScheduler:
    """``value`` at every point of the run."""

    value: float

    def __call__(self, where: float) -> float:
        return self.value


@dataclass(frozen=True)
class LinearParamScheduler:
    """A straight line from ``start_value`` at 0 to ``end_value`` at 1."""

    start_value: float
    end_value: float

    def __call__(self, where: float) -> float:
        return self.start_value + (self.end_value - self.start_value) * where


@dataclass(frozen=True)
class CosineParamScheduler:
    """Half a cosine from ``start_value`` at 0 to ``end_value`` at 1 (Loshchilov & Hutter 2017, eq. 5)."""

    start_value: float
    end_value: float

    def __call__(self, where: float) -> float:
        return self.end_value + (self.start_value - self.end_value) * (1 + math.cos(math.pi * where)) / 2


@dataclass(frozen=True)
class ExponentialParamScheduler:
    """``start_value`` times ``decay`` to the power of the progress."""

    start_value: float
    decay: float

    def __call__(self, where: float) -> float:
        return float(self.start_value * self.decay**where)


@dataclass(frozen=True)
class PolynomialDecayParamScheduler:
    """``base_value`` times what is left of the run to the power of ``power``."""

    base_value: float
    power: float

    def __call__(self, where: float) -> float:
        return float(self.base_value * (1 - where) ** self.power)


class MultiStepParamScheduler:
    """One of ``values`` per interval; ``milestones`` are the interval ends out of ``num_updates``.

    Without ``num_updates`` the last milestone is the end of the run; without ``milestones`` the intervals are equal.
    """

    def __init__(
        self, values: Sequence[float], num_updates: int | None = None, milestones: Sequence[int] | None = None
    ) -> None:
        if milestones is None:
            if num_updates is None:
                raise ConfigError("num_updates and milestones are both None", allowed="one of them, or both")
            width = math.ceil(num_updates / len(values))
            milestones = [width * (index + 1) for index in range(len(values) - 1)]
        elif num_updates is None:
            num_updates, milestones = milestones[-1], milestones[:-1]
        if len(milestones) != len(values) - 1:
            raise ConfigError(
                f"{len(values)} values with {len(milestones)} milestones inside the run", allowed="one less than values"
            )
        if num_updates < len(values):
            raise ConfigError(f"num_updates {num_updates} for {len(values)} values", allowed="at least one each")
        bounds = [0, *milestones, num_updates]
        if any(left >= right for left, right in pairwise(bounds)):
            raise ConfigError(f"milestones {list(milestones)}", allowed=f"ascending, inside of {num_updates} updates")
        self.values, self.num_updates, self.milestones = list(values), num_updates, list(milestones)

    def __call__(self, where: float) -> float:
        return self.values[bisect.bisect_right(self.milestones, int((where + EPSILON) * self.num_updates))]


class StepParamScheduler:
    """One of ``values`` after the other, each for the same share of the run."""

    def __init__(self, num_updates: float, values: Sequence[float]) -> None:
        if num_updates <= 0 or not values:
            raise ConfigError(f"num_updates {num_updates} for {len(values)} values", allowed="at least one of each")
        self.values = list(values)

    def __call__(self, where: float) -> float:
        return self.values[min(int((where + EPSILON) * len(self.values)), len(self.values) - 1)]


class StepWithFixedGammaParamScheduler(StepParamScheduler):
    """``base_value``, multiplied by ``gamma`` ``num_decays`` times at equal distances."""

    def __init__(self, base_value: float, num_decays: int, gamma: float, num_updates: int) -> None:
        given = {"base_value": base_value, "num_decays": num_decays, "gamma": gamma}
        if wrong := [f"{name} {value}" for name, value in given.items() if value <= 0]:
            raise ConfigError(wrong[0], allowed="a number above 0")
        super().__init__(num_updates, [base_value * gamma**index for index in range(num_decays + 1)])


class CompositeParamScheduler:
    """Schedules one after the other; ``lengths`` are their shares of the run and sum to 1.

    ``interval_scaling`` says per part whether it sees its own progress (``rescaled``) or the run's (``fixed``). It has
    no default, though fvcore's own docstring names one: a section without it would run here and stop in the trainer.
    """

    def __init__(
        self, schedulers: Sequence[Schedule], lengths: Sequence[float], interval_scaling: Sequence[str]
    ) -> None:
        if len(schedulers) != len(lengths) or not schedulers:
            raise ConfigError(
                f"{len(schedulers)} schedulers with {len(lengths)} lengths",
                allowed="at least one scheduler, and one length each",
            )
        if abs(sum(lengths) - 1.0) >= 1e-3:
            raise ConfigError(f"lengths {list(lengths)} sum to {sum(lengths):g}", allowed="shares that sum to 1")
        self.schedulers = list(schedulers)
        self.lengths = [*lengths[:-1], 1.0 - sum(lengths[:-1])]
        self.scaling = list(interval_scaling)
        if wrong := [name for name in self.scaling if name not in ("rescaled", "fixed")]:
            raise ConfigError(f"interval_scaling {wrong[0]!r}", allowed="rescaled, fixed")

    def __call__(self, where: float) -> float:
        start = 0.0
        for index, length in enumerate(self.lengths):
            last = index == len(self.lengths) - 1
            if where + EPSILON <= start + length or last:
                local = where
                if self.scaling[index] == "rescaled":
                    local = min(1.0, max(0.0, (where - start) / length)) if length else 1.0
                return self.schedulers[index](local)
            start += length
        raise AssertionError("unreachable: the last part takes every remaining point")


def build_schedule(node: Mapping[str, Any], *, where: str) -> Schedule:
    """Instantiates a schedule section, its nested ``schedulers`` included.

    Example:
        >>> lr = build_schedule({"_target_": "fvcore.common.param_scheduler.CosineParamScheduler",
        ...                      "start_value": 1e-3, "end_value": 0.0}, where="optim.options.lr[0].scheduler")
        >>> lr(0.5)
        0.0005

    Raises:
        ConfigError: the ``_target_`` cannot be built or does not give a finite number at 0, at 0.5 and just before 1.
    """
    from pytest_overfit.trainer.instantiate import instantiate

    schedule: Schedule = instantiate(_serve_locally(node), where=where, plain=True)
    for point in (0.0, 0.5, NEARLY_DONE):
        try:
            value = schedule(point)
        except Exception as error:  # the schedule may be the user's, and fvcore's fail here too, not when built
            raise ConfigError(
                f"{node['_target_']} raises {type(error).__name__} at progress {point}: {error}",
                where=where,
                allowed="a finite number >= 0",
            ) from error
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise ConfigError(f"{value!r} at progress {point}", where=where, allowed="a finite number >= 0")
    return schedule


def _serve_locally(node: Any) -> Any:
    if isinstance(node, Mapping):
        served = {key: _serve_locally(value) for key, value in node.items()}
        target = served.get("_target_")
        if isinstance(target, str) and target.startswith(FVCORE) and not _has_fvcore():
            served["_target_"] = f"{__name__}.{target.removeprefix(FVCORE)}"
        return served
    if isinstance(node, (list, tuple)):
        return [_serve_locally(value) for value in node]
    return node


def _has_fvcore() -> bool:
    return importlib.util.find_spec("fvcore") is not None
