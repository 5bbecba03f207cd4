"""Which keys of a config set its learning rate: found by setting them, and looking what the rate then is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_overfit.errors import OverfitError
from pytest_overfit.trainer.build import LR_SCHEDULE, at_home, schedule_of
from pytest_overfit.trainer.config import OverfitConfig
from pytest_overfit.trainer.loading import load_config
from pytest_overfit.trainer.schedules import NEARLY_DONE
from pytest_overfit.trainer.unread import leaves

POINTS = (0.0, 0.1, 0.25, 0.5, 0.75, NEARLY_DONE)  # of the progress of a run
CLOSE = 0.02  # of a rate: three digits are written
OWN = "optim.optimizer.lr"


def rate_overrides(config: OverfitConfig, was: float, works: float) -> str:
    """The options that change the learning rate of a config by a factor, all of its schedule; empty where none do."""
    factor = works / was if was else 0.0
    now = rates_of(config)
    for changes in _candidates(config, factor, works):
        overrides = [f"{key}={value:.3g}" for key, value in changes]
        try:
            changed = load_config(config.path, [*config.overrides, *overrides], ini=config.ini)
            after = rates_of(changed)
        except OverfitError:
            continue
        wanted = [rate * factor if was else works for rate in now]
        if all(abs(rate - goal) <= CLOSE * abs(goal) for rate, goal in zip(after, wanted, strict=True)):
            return " ".join(f"--overfit-set {text}" for text in overrides)
    return ""


def rates_of(config: OverfitConfig) -> tuple[float, ...]:
    """The learning rate over a run: the schedule's, where there is one."""
    with at_home(config, group=False):
        schedule = schedule_of(config.lr_schedule, LR_SCHEDULE)
    own = float(config.optimizer.get("lr", 1e-3))
    return tuple(own if schedule is None else float(schedule(point)) for point in POINTS)


def _candidates(config: OverfitConfig, factor: float, works: float) -> Iterator[Sequence[tuple[str, float]]]:
    own = float(config.optimizer.get("lr", 1e-3))
    yield [(OWN, own * factor if factor else works)]
    if config.lr_schedule is not None and factor:
        scaled = [(key, value * factor) for key, value in leaves(config.lr_schedule, "lr", _key(config))]
        yield scaled
        yield [*scaled, (OWN, own * factor)]


def _key(config: OverfitConfig) -> str:
    """Where the schedule stands: in a list or alone, with the trainer's wrapping or without."""
    node, key = config.resolved["optim"]["options"]["lr"], "optim.options.lr"
    if isinstance(node, list):
        node, key = node[0], f"{key}.0"
    return key if "_target_" in node else f"{key}.scheduler"
