"""What must hold of a run, as frozen records of plain values: the ``overfit.criteria`` section and its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

from pytest_overfit.errors.suggest import nearest
from pytest_overfit.settings.criteria_registry import entries

STOCHASTIC_WINDOW = 25  # steps


@dataclass(frozen=True)
class Limit:
    """What a term has to reach: below one number, above another, or both.

    ``relative`` compares with the term's start instead (0.05: a twentieth of it; the start must be above zero).
    ``window`` compares the mean over that many latest steps, and over the first as many for the start.
    ``stated`` is False for a default that nobody has chosen for this loss.

    Example:
        >>> Limit(below=0.05, relative=True).text(), Limit(above=0.99).text()
        ('< 0.05 of its start', '> 0.99')
    """

    below: float | None = None
    above: float | None = None
    relative: bool = False
    window: int = 1
    stated: bool = field(default=True, compare=False)

    def text(self) -> str:
        """The limit as a message shows it."""
        bounds = (("<", self.below), (">", self.above))
        shown = " and ".join(f"{sign} {value:.4g}" for sign, value in bounds if value is not None)
        mean = f", mean of {self.window} steps" if self.window > 1 else ""
        return f"{shown}{' of its start' if self.relative else ''}{mean}"

    def measure(self, curve: Sequence[float], end: int, start: float | None = None) -> float:
        """What is compared after step ``end`` (from 1) of a curve: a value or mean, or its share of the start.

        ``start`` is that of the curve, where it is known already.
        """
        value = _mean(curve[max(0, end - self.window) : end])
        if not self.relative:
            return value
        start = self.start(curve) if start is None else start
        return value / start if start > 0 else math.nan

    def start(self, curve: Sequence[float]) -> float:
        """Where a curve starts, as this limit measures it: its first value, or the mean over the first window."""
        return _mean(curve[: self.window])

    def ceiling(self, curve: Sequence[float]) -> float | None:
        """The upper limit as a value of the curve; None where there is none.

        Example:
            >>> Limit(0.05, relative=True).ceiling([4.0, 2.0])
            0.2
        """
        return self.below * self.start(curve) if self.relative and self.below is not None else self.below

    def holds(self, measured: float) -> bool:
        """Whether a measured value is within the bounds; a NaN never is."""
        return (self.below is None or measured < self.below) and (self.above is None or measured > self.above)


def _mean(values: Sequence[float]) -> float:
    if len(values) == 1:
        return values[0] if math.isfinite(values[0]) else math.nan
    return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan


def _limit_of(name: str, value: Any) -> Limit | bool | None:
    """A limit, a number (below it), a mapping of a limit's fields, or a switch."""
    if value is None or isinstance(value, (bool, Limit)):
        return value
    if isinstance(value, Mapping):
        return Limit(**value)
    if isinstance(value, Real):
        return Limit(float(value))
    raise TypeError(f"{name}: a {type(value).__name__} is no limit: a number, a mapping, a Limit, or False")


@dataclass(frozen=True, init=False, eq=False)
class Criteria:
    """``overfit.criteria``: what must hold. None or False: switched off, and not collected as a test.

    Every registered criterion is a keyword and an attribute; what is not given has its default, that of a run under a
    config where ``in_config`` says so. ``terms`` has the limits of further terms of the loss.
    A limit is a ``Limit``, a number (below it), a mapping of a limit's fields, or False.

    Six are declared exceptions, and show in the report: ``unused`` and ``frozen`` are globs over parameter names that
    get no gradient, or do not move, on purpose; ``infinite`` over outputs, terms, parameters and buffers that `finite`
    does not judge; ``unbounded`` says that the objective has no floor, so that its stated limit counts although it may
    be negative; ``stochastic`` that training or draws are random, so that limits hold for a windowed mean and
    draws of the loader may differ; ``allow`` holds ids of causes (docs/causes.md) that are meant here, or ``id:glob``
    of the places where they are.

    Example:
        >>> Criteria(monotonic=False, terms={"loss_T": 0.001}).names()[3:]
        ('gradients', 'objective', 'loss_T', 'defects')

    Raises:
        TypeError: no criterion has this name, or what stands for a limit is none.
    """

    given: Mapping[str, Any]
    terms: Mapping[str, Limit]
    unused: tuple[str, ...]
    frozen: tuple[str, ...]
    infinite: tuple[str, ...]
    unbounded: bool
    stochastic: bool
    allow: tuple[str, ...]
    in_config: bool

    def __init__(
        self,
        *,
        given: Mapping[str, Any] | None = None,
        terms: Mapping[str, Any] | None = None,
        unused: tuple[str, ...] = (),
        frozen: tuple[str, ...] = (),
        infinite: tuple[str, ...] = (),
        unbounded: bool = False,
        stochastic: bool = False,
        allow: tuple[str, ...] = (),
        in_config: bool = False,
        **settings: Any,
    ) -> None:
        for name in settings:
            if name not in entries():
                guess = nearest(name, entries())
                raise TypeError(f"no criterion is named {name!r}" + (f"; did you mean {guess!r}?" if guess else ""))
        limits = {name for name, entry in entries().items() if entry.limit}
        read = {n: _limit_of(n, v) if n in limits else v for n, v in {**(given or {}), **settings}.items()}
        further = {name: _limit_of(name, value) for name, value in (terms or {}).items()}
        if odd := next((name for name, limit in further.items() if limit is True), None):
            raise TypeError(f"{odd}: True is no limit, and a further term has no default")
        read |= {name: further.pop(name) for name in limits & further.keys()}
        values = {
            "given": read,
            "terms": {name: limit for name, limit in further.items() if limit},
            "unused": unused,
            "frozen": frozen,
            "infinite": infinite,
            "unbounded": unbounded,
            "stochastic": stochastic,
            "allow": allow,
            "in_config": in_config,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        """The setting of a criterion; None or False where it is off."""
        if name.startswith("_") or name not in entries():
            raise AttributeError(f"no criterion is named {name!r}")
        return self.setting(name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Criteria) and self._values() == other._values()

    __hash__ = None  # type: ignore[assignment]

    def _values(self) -> tuple[Any, ...]:
        settings = {name: self.setting(name) or None for name in entries()}
        declared = self.unused, self.frozen, self.infinite, self.unbounded, self.stochastic, self.allow
        return settings, self.terms, *declared

    def setting(self, name: str) -> Any:
        """What a registered criterion is set to."""
        entry, given = entries()[name], name in self.given
        value = self.given.get(name)
        if given and value is not True:
            return value
        if not given and entry.config_only and not self.in_config:
            return None
        criterion = entry.load()
        return criterion.switched_on(self.in_config) if given else criterion.default(self.in_config)

    def limits(self) -> dict[str, Limit]:
        """Every term with a limit, by criterion name: objective, camera and depth first; only those that are on.

        Under ``stochastic`` a limit without a window of its own is judged on a mean.

        Example:
            >>> list(Criteria(camera=Limit(0.1), terms={"loss_T": Limit(0.001)}).limits())
            ['objective', 'camera', 'loss_T']
        """
        named = {**{name: self.setting(name) for name, entry in entries().items() if entry.limit}, **self.terms}
        limits = {name: limit for name, limit in named.items() if isinstance(limit, Limit)}
        if not self.stochastic:
            return limits
        return {
            name: replace(limit, window=STOCHASTIC_WINDOW) if limit.window == 1 else limit
            for name, limit in limits.items()
        }

    def asks_for_learning(self) -> bool:
        """Whether anything here can only be reached by a model that has learnt: a limit, predictions, tokens.

        Example:
            >>> Criteria(objective=None).asks_for_learning()
            False
        """
        return bool(self.limits()) or any(entries()[name].load().learning for name in self.names() if name in entries())

    def names(self) -> tuple[str, ...]:
        """The criteria that are switched on, in the order in which they are reported; terms by their own name."""
        order = list(entries())
        first = max(order.index(name) for name, entry in entries().items() if entry.limit) + 1
        on = {name: self.setting(name) not in (None, False) for name in order}
        return (*(n for n in order[:first] if on[n]), *self.terms, *(n for n in order[first:] if on[n]))
