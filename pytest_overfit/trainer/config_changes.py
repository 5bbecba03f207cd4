"""What to change in a config: as options to paste, and where the keys are written.

Which keys set its learning rate is found by setting them, and looking what the rate then is.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.suggest import from_here
from pytest_overfit.run.columns import gone_at
from pytest_overfit.trainer.build import KEYS, LR_SCHEDULE, at_home, schedule_of
from pytest_overfit.trainer.config import OverfitConfig
from pytest_overfit.trainer.loading import load_config
from pytest_overfit.trainer.schedules import NEARLY_DONE
from pytest_overfit.trainer.unread import leaves
from pytest_overfit.trainer.written_keys import written_keys

POINTS = (*(k / 200 for k in range(200)), NEARLY_DONE)  # of the progress of a run: a warm-up is short
CLOSE = 0.02  # of a rate: three digits are written
LEAST_AREA = 0.2  # of a run at its peak: what one number of a schedule raises is no short part of it
OWN, SCHEDULE = KEYS["lr"], "optim.options.lr"


@dataclass
class ConfigChanges:
    """The options that change a config, empty where none do.

    Example:
        >>> ConfigChanges(load_config("mine.yaml")).thawed()                                      # doctest: +SKIP
        "--overfit-set 'optim.frozen_module_names=[]'"
    """

    config: OverfitConfig

    def rate(self, was: float, works: float) -> str:
        """Another learning rate: one that the schedule is made of, else all values of the schedule alike."""
        return rate_overrides(self.config, was, works)

    def lasting(self) -> str:
        """A schedule that lasts for the run: by one number of it, else none in its place."""
        return lasting_schedule(self.config)

    def no_decay(self) -> str:
        return "" if self.config.weight_decay_schedule else options([("optim.optimizer.weight_decay", "0")])

    def thawed(self) -> str:
        """Nothing is frozen, by either of the keys that freeze."""
        own = (KEYS["freeze"], self.config.frozen_module_names), ("overfit.freeze", self.config.overfit.freeze)
        return options([(key, "[]") for key, globs in own if globs])

    def clip(self, below: float, now: str) -> str:
        """Every norm below one that clips away what is learned from is ``now``."""
        changes = [
            (f"{KEYS['clip_grad_norm']}.configs.{at}.max_norm", now)
            for at, group in enumerate(self.config.gradient_clip)
            if group.max_norm < below
        ]
        section = self.config.resolved.get("overfit", {})
        whole = section.get("clip_grad_norm") if isinstance(section, Mapping) else None
        if isinstance(whole, (int, float)) and whole < below:
            changes.append(("overfit.clip_grad_norm", now))
        return options(changes)

    def weight(self, term: str) -> str:
        """A weight of 1 for the one argument of the loss that is named after a term and is a weight of 0."""
        name = term.removeprefix("loss_")
        found = [
            key for key, value in _numbers(self.config.resolved.get("loss"), "loss")
            if value == 0 and "weight" in key and name in key
        ]  # fmt: skip
        return options([(found[0], "1.0")]) if len(found) == 1 else ""

    def place(self, key: str) -> str:
        """The file and the line that a key, or the nearest above it, is written at, and the key; empty: in none."""
        above = key
        while above and above not in self._written:
            above = above.rpartition(".")[0]
        if not above:
            return ""
        file, line = self._written[above]
        return f"{from_here(str(file.absolute()))}:{line} {key}"

    @cached_property
    def _written(self) -> Mapping[str, tuple[Path, int]]:
        return written_keys(self.config.path, self.config.overrides)


def options(changes: Sequence[tuple[str, str]]) -> str:
    """Options that set keys, as a shell takes them.

    Example:
        >>> options([("optim.optimizer.lr", "0.01"), ("overfit.freeze", "[]")])
        "--overfit-set optim.optimizer.lr=0.01 --overfit-set 'overfit.freeze=[]'"
    """
    return " ".join(f"--overfit-set {shlex.quote(f'{key}={value}')}" for key, value in changes)


def rate_overrides(config: OverfitConfig, was: float, works: float) -> str:
    """The options that change the learning rate of a config by a factor; empty where none do.

    The one key that its peak comes from, in the optimizer or in the schedule, else all values of the schedule.
    """
    factor = works / was if was else 0.0
    now = rates_of(config)
    wanted = [rate * factor if was else works for rate in now]
    for changes in _candidates(config, now, factor, works):
        written = [(key, f"{value:.3g}") for key, value in changes]
        after = _rates_with(config, written)
        if not after or after == now:
            continue
        peaks = len(changes) == 1 and _is(max(after), works) and sum(after) > LEAST_AREA * works * len(after)
        if peaks or all(_is(rate, goal) for rate, goal in zip(after, wanted, strict=True)):
            return options(written)
    return ""


def lasting_schedule(config: OverfitConfig) -> str:
    """The options by which a learning rate that is gone too early lasts, at the same peak; empty where none do."""
    now = rates_of(config)
    if config.lr_schedule is None or (at := gone_at(now)) is None:
        return ""
    values, own = dict(leaves(config.lr_schedule, "lr", _key(config))), float(config.optimizer.get("lr", 1e-3))
    others = [each for each in _numbers(config.lr_schedule, _key(config)) if each[0] not in values and each[1] > 0]
    longer = [(key, _longer(value, share * len(now) / at)) for key, value in others for share in (1.0, 0.9)]
    none = [(SCHEDULE, "null"), *([] if _is(own, max(now)) else [(OWN, f"{max(now):.3g}")])]
    for changes in (*([change] for change in longer), none):
        after = _rates_with(config, changes)
        if after and gone_at(after) is None and 0.5 * max(now) < max(after) <= (1 + CLOSE) * max(now):
            return options(changes)
    return ""


def _longer(value: float, times: float) -> str:
    """A number of a schedule times so much: a share is at most 1, and a count stays one."""
    return f"{min(1.0, value * times):.3g}" if value < 1 else f"{value * times:.0f}"


def _rates_with(config: OverfitConfig, changes: Sequence[tuple[str, str]]) -> tuple[float, ...]:
    """The learning rate over a run of the config with these keys set; empty where it cannot be so."""
    overrides = [f"{key}={value}" for key, value in changes]
    try:
        return rates_of(load_config(config.path, [*config.overrides, *overrides], ini=config.ini))
    except OverfitError:
        return ()


def rates_of(config: OverfitConfig) -> tuple[float, ...]:
    """The learning rate over a run: the schedule's, where there is one."""
    with at_home(config, group=False):
        schedule = schedule_of(config.lr_schedule, LR_SCHEDULE)
    own = float(config.optimizer.get("lr", 1e-3))
    return tuple(own if schedule is None else float(schedule(point)) for point in POINTS)


def _is(rate: float, goal: float) -> bool:
    return abs(rate - goal) <= CLOSE * abs(goal)


def _candidates(
    config: OverfitConfig, now: Sequence[float], factor: float, works: float
) -> Iterator[Sequence[tuple[str, float]]]:
    own = float(config.optimizer.get("lr", 1e-3))
    yield [(OWN, works)]
    yield [(OWN, own * factor)]
    if config.lr_schedule is not None and factor:
        found = list(leaves(config.lr_schedule, "lr", _key(config)))
        if _is(now[-1], max(now)):  # it ends at its highest: what was to be its peak is below that
            yield from ([(key, works)] for key, value in found if value < min(works, max(now)))
        scaled = [(key, value * factor) for key, value in found if value]
        yield scaled
        yield [*scaled, (OWN, own * factor)]


def _key(config: OverfitConfig) -> str:
    """Where the schedule stands: in a list or alone, with the trainer's wrapping or without."""
    node, key = config.resolved["optim"]["options"]["lr"], SCHEDULE
    if isinstance(node, list):
        node, key = node[0], f"{key}.0"
    return key if "_target_" in node else f"{key}.scheduler"


def _numbers(node: Any, key: str) -> Iterator[tuple[str, float]]:
    """The numbers of a tree, by their keys."""
    if isinstance(node, (int, float)) and not isinstance(node, bool):
        yield key, float(node)
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for part, value in pairs:
        yield from _numbers(value, f"{key}.{part}")
