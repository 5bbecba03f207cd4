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
from typing import Any

from pytest_overfit.errors import ConfigError

Schedule = Callable[[float], float]

FVCORE = "fvcore.common.param_scheduler."
NEARLY_DONE = 1 - 1e-6  # a run asks at step / steps, and fvcore refuses 1 itself


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


class MultiStepParamScheduler:
    """One of ``values`` per interval; ``milestones`` are the interval ends out of ``num_updates``."""

    def __init__(
        self, values: Sequence[float], num_updates: int | None = None, milestones: Sequence[int] | None = None
    ) -> None:
        if milestones is None:
            self.edges = [k / len(values) for k in range(1, len(values))]
        else:
            total = num_updates if num_updates is not None else milestones[-1]
            self.edges = [milestone / total for milestone in milestones][: len(values) - 1]
        self.values = list(values)

    def __call__(self, where: float) -> float:
        return self.values[bisect.bisect_right(self.edges, where)]


class CompositeParamScheduler:
    """Schedules one after the other; ``lengths`` are their shares of the run and sum to 1.

    ``interval_scaling`` says per part whether it sees its own progress (``rescaled``) or the run's (``fixed``).
    """

    def __init__(
        self, schedulers: Sequence[Schedule], lengths: Sequence[float], interval_scaling: Sequence[str] | None = None
    ) -> None:
        if len(schedulers) != len(lengths) or not schedulers:
            raise ConfigError(f"{len(schedulers)} schedulers with {len(lengths)} lengths", allowed="one length each")
        if not math.isclose(sum(lengths), 1.0, abs_tol=1e-6):
            raise ConfigError(f"lengths {list(lengths)} sum to {sum(lengths):g}", allowed="shares that sum to 1")
        self.schedulers = list(schedulers)
        self.lengths = list(lengths)
        self.scaling = list(interval_scaling or ["rescaled"] * len(lengths))
        if wrong := [name for name in self.scaling if name not in ("rescaled", "fixed")]:
            raise ConfigError(f"interval_scaling {wrong[0]!r}", allowed="rescaled, fixed")

    def __call__(self, where: float) -> float:
        start = 0.0
        for index, length in enumerate(self.lengths):
            last = index == len(self.lengths) - 1
            if where < start + length or last:
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
    from pytest_overfit.run.build import instantiate

    schedule: Schedule = instantiate(_serve_locally(node), where=where, plain=True)
    for point in (0.0, 0.5, NEARLY_DONE):
        value = schedule(point)
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise ConfigError(f"{value!r} at progress {point}", where=where, allowed="a finite number >= 0")
    return schedule


def _serve_locally(node: Any) -> Any:
    if isinstance(node, Mapping):
        served = {key: _serve_locally(value) for key, value in node.items()}
        target = served.get("_target_")
        if isinstance(target, str) and target.startswith(FVCORE) and importlib.util.find_spec("fvcore") is None:
            served["_target_"] = f"{__name__}.{target.removeprefix(FVCORE)}"
        return served
    if isinstance(node, (list, tuple)):
        return [_serve_locally(value) for value in node]
    return node
