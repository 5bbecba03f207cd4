"""Values of a config that something else overrides: the schedule of a hyper-parameter has another one. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.trainer.config import OverfitConfig

CLOSE = 0.02  # of a value: a person writes two or three digits
ARGUMENTS = {"lr": ("value", "lr", "rate"), "weight_decay": ("value", "weight_decay")}  # ends of the names of values


def overridden(config: OverfitConfig) -> Iterator[str]:
    """That a value of the optimizer is none of those that its schedule sets.

    Example:
        >>> cosine = {"_target_": "pytest_overfit.trainer.schedules.Cosine", "start_value": 2e-3, "end_value": 6e-5}
        >>> list(overridden(OverfitConfig(Path("a.yaml"), "a", optimizer={"lr": 1e-9}, lr_schedule=cosine)))
        ['optim.optimizer.lr = 1e-09 is not used: the schedule optim.options.lr sets 6e-05 to 0.002']
    """
    for name, schedule in (("lr", config.lr_schedule), ("weight_decay", config.weight_decay_schedule)):
        own, values = config.optimizer.get(name), [value for _, value in leaves(schedule or {}, name)]
        if not values or not isinstance(own, (int, float)) or isinstance(own, bool):
            continue
        if not any(abs(value - own) <= CLOSE * abs(own) for value in values):
            span = f"{min(values):g}" if len(set(values)) == 1 else f"{min(values):g} to {max(values):g}"
            yield f"optim.optimizer.{name} = {own:g} is not used: the schedule optim.options.{name} sets {span}"


def leaves(node: Any, name: str, key: str = "") -> Iterator[tuple[str, float]]:
    """The arguments of a schedule, nested ones too, that are values of what it sets; by their keys below ``key``.

    Example:
        >>> list(leaves({"schedulers": [{"value": 1e-3}], "lengths": [1.0]}, "lr", "scheduler"))
        [('scheduler.schedulers.0.value', 0.001)]
    """
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for part, value in pairs:
        here = f"{key}.{part}" if key else str(part)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            yield from leaves(value, name, here)
        elif str(part).endswith(ARGUMENTS[name]):
            yield here, float(value)
