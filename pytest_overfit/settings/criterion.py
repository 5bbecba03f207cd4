"""What a criterion is, whoever registers it: its name, what it may be set to, and how a record is judged by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def always(_: Any) -> bool:
    """Of every record."""
    return True


def never(_: Any) -> bool:
    """Of no record."""
    return False


@dataclass(frozen=True)
class Criterion:
    """One thing that must hold of a run.

    Example:
        >>> def judge_speed(record, setting, criteria):
        ...     return Finding("speed", record.seconds < 60, f"{record.seconds:.0f} s", "a quick run")
        >>> SPEED = Criterion("speed", "the run is quick", judge=judge_speed, on_in_config=False)
        >>> SPEED.default(in_config=False), SPEED.default(in_config=True)
        (True, False)

    Its module is named in ``criteria_registry.BUILT_IN``, or by an entry point ``pytest_overfit.criteria`` of any
    package. Then it has a key ``overfit.criteria.<name>``, a keyword, an item of every config, and a row in the tables
    and the docs.

    Args:
        name: also its key in a config, its keyword, and its item.
        help: one line of the docs.
        setting: what it is set to where it is switched on: True, a `Limit` on the term of its name, or a frozen
            dataclass of numbers (see `bounded`) and switches.
        judge: ``judge(record, setting, criteria) -> Finding``, a pure function; None: judged elsewhere, or as a limit.
        in_config: its setting under a config, where that is another.
        on, on_in_config: whether it is on where nobody says so, without a config and under one.
        condition: when it is on under a config all the same, for the docs; else it cannot be switched on there.
        check: (what is wrong, what is allowed) of a setting that was read; None where it can be used.
        floor: what a limit in a config may not reach.
        learning: only a model that has learnt can meet it.
        awaited: a run that reaches its limits goes on until this holds too.
        targets: of a limit: the keys of the batch that its term must answer to; none: any target.
        tells: whether it is the one that says why a run stopped.
        echoes: whether a miss only repeats that, in a run that stopped at a fault.
    """

    name: str
    help: str
    setting: Any = True
    judge: Callable[[Any, Any, Any], Any] | None = None
    in_config: Any = None
    on: bool = True
    on_in_config: bool = True
    condition: str = ""
    check: Callable[[Any], tuple[str, str] | None] | None = None
    floor: float | None = None
    learning: bool = False
    awaited: bool = False
    targets: tuple[str, ...] = ()
    tells: Callable[[Any], bool] = never
    echoes: Callable[[Any], bool] = always

    def switched_on(self, in_config: bool) -> Any:
        """What ``true`` means."""
        return self.setting if self.in_config is None or not in_config else self.in_config

    def off(self) -> Any:
        """What ``false`` means: a setting that is none."""
        return False if self.setting is True else None

    def default(self, in_config: bool) -> Any:
        """What holds where nobody says anything."""
        return self.switched_on(in_config) if (self.on_in_config if in_config else self.on) else self.off()


def bounded(default: Any, **bounds: Any) -> Any:
    """A number of a setting, within bounds: ``at_least``, ``above``, ``at_most``, ``under``, ``whole``.

    Example:
        >>> @dataclass(frozen=True)
        ... class Speed:
        ...     seconds: float = bounded(60.0, above=0)
    """
    return dataclasses.field(default=default, metadata=bounds)
