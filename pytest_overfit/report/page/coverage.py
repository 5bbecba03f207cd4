"""Which parameters learn: by module, and those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_overfit.run.record import ParameterRecord

MOST_MODULES = 24
MOST_SHOWN = 400  # parameters of one module


@dataclass(frozen=True)
class ModuleCoverage:
    """The parameters of one module together; ``problems`` says of how many what is wrong."""

    name: str
    parameters: tuple[ParameterRecord, ...]

    @property
    def numel(self) -> int:
        return sum(parameter.numel for parameter in self.parameters)

    @property
    def trainable(self) -> int:
        return sum(parameter.numel for parameter in self.parameters if parameter.trainable)

    @property
    def in_optimizer(self) -> int:
        return sum(parameter.numel for parameter in self.parameters if parameter.in_optimizer)

    @property
    def frozen_by(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(parameter.frozen_by for parameter in self.parameters if parameter.frozen_by))

    @property
    def max_grad(self) -> float | None:
        return max((p.max_grad for p in self.parameters if p.max_grad is not None), default=None)

    @property
    def moved(self) -> float:
        return max(parameter.moved for parameter in self.parameters)

    @property
    def problems(self) -> tuple[str, ...]:
        found = [problem for parameter in self.parameters for problem in problems_of(parameter)]
        return tuple(f"{found.count(problem)} {problem}" for problem in dict.fromkeys(found))

    @property
    def shown(self) -> tuple[ParameterRecord, ...]:
        """Those with a problem first; of very many the first ones."""
        return tuple(sorted(self.parameters, key=lambda parameter: not problems_of(parameter))[:MOST_SHOWN])


def problems_of(parameter: ParameterRecord) -> tuple[str, ...]:
    """What is wrong with one parameter.

    Example:
        >>> problems_of(ParameterRecord("w", 4, True, None, False, None, 0.0, True))
        ('no gradient', 'outside the optimizer', 'not moved')
    """
    if not parameter.trainable:
        return ("moved though frozen",) if parameter.moved else ()
    said = (
        ("not finite", not parameter.finite),
        ("no gradient", parameter.max_grad is None),
        ("gradient of zero", parameter.max_grad == 0),
        ("outside the optimizer", not parameter.in_optimizer),
        ("not moved", parameter.moved == 0),
    )
    return tuple(text for text, holds in said if holds)


def by_module(parameters: Sequence[ParameterRecord]) -> tuple[ModuleCoverage, ...]:
    """The parameters by module, as deep down as leaves at most ``MOST_MODULES`` of them where that is possible."""
    deepest = max((parameter.name.count(".") for parameter in parameters), default=0)
    groups: dict[str, list[ParameterRecord]] = {}
    for depth in range(max(1, deepest), 0, -1):
        groups = {}
        for parameter in parameters:
            groups.setdefault(_module(parameter.name, depth), []).append(parameter)
        if len(groups) <= MOST_MODULES:
            break
    return tuple(ModuleCoverage(name, tuple(members)) for name, members in groups.items())


def _module(name: str, depth: int) -> str:
    """The module a parameter belongs to, cut at a depth; a parameter of the model itself stands for itself."""
    parts = name.split(".")
    return ".".join(parts[:-1][:depth]) or name
