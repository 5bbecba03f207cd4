"""What an operator is: one mistake that is put into any training run which has a place for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.operators.trace import Trace

Kind = Literal[
    "forgotten", "doubled", "misplaced", "swapped", "detached", "axis", "mask", "rows", "dtype", "mode", "order",
    "copy", "optimizer", "count", "init", "scale", "place",
]  # fmt: skip
Outcome = Literal["breaks", "silent"]
Step = Callable[[nn.Module, Any, torch.optim.Optimizer], Tensor]
BREAKING: frozenset[Outcome] = frozenset({"breaks"})
EITHER: frozenset[Outcome] = frozenset({"breaks", "silent"})


@dataclass
class Setup:
    """One training run as a user would hand it over; an operator changes what it is made of.

    ``optimizer`` is None where the program's own is made of the trainable parameters, ``step`` where the loop is the
    usual one. ``again`` builds the same model once more from the same seed, without touching the random generator.
    """

    model: nn.Module
    batch: Any
    loss: Callable[[nn.Module, Any], Tensor]
    optimizer: torch.optim.Optimizer | None = None
    step: Step | None = None
    given: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """What an operator may look at and choose from: the program, one traced call of its loss, and a seeded source."""

    program: Program
    trace: Trace
    choose: random.Random

    def optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """The program's optimizer over other parameters, or groups of them."""
        return self.program.optimizer(parameters, self.program.lr)


Apply = Callable[[Setup, Site], str | None]


@dataclass(frozen=True)
class Operator:
    """One mistake.

    Attributes:
        id: what it is called.
        kind: what was done: forgotten, doubled, swapped, ...
        causes: the ids of the catalogue that are right, from the mechanism alone.
        needs: traits that a program has to have.
        counts: the outcomes that are a case. A frozen part that still learns is no mistake, one that cannot is.
        apply: puts it into a setup and says where; None where the program has no place for it.
    """

    id: str
    kind: Kind
    causes: tuple[str, ...]
    needs: frozenset[str]
    counts: frozenset[Outcome]
    apply: Apply

    @property
    def text(self) -> str:
        """The mistake in one sentence."""
        return (self.apply.__doc__ or "").strip().splitlines()[0]


def operator(
    kind: Kind, *causes: str, needs: str = "", counts: frozenset[Outcome] = EITHER
) -> Callable[[Apply], Operator]:
    """Makes a function that changes a setup an operator, named after it."""
    return lambda apply: Operator(apply.__name__, kind, causes, frozenset(needs.split()), counts, apply)


def healthy(program: Program, seed: int) -> Setup:
    """A program as it is, from a seed."""
    torch.manual_seed(seed)
    model = program.model()
    return Setup(model, program.batch(), program.loss, given=dict(program.given))


def broken(program: Program, mistake: Operator, trace: Trace, seed: int) -> tuple[Setup, str] | None:
    """A program with a mistake, and where it stands; None where the program has no place for it."""
    if not mistake.needs <= program.traits:
        return None
    setup = healthy(program, seed)
    kept = torch.get_rng_state()
    where = mistake.apply(setup, Site(program, trace, random.Random(f"{program.name} {mistake.id} {seed}")))
    torch.set_rng_state(kept)
    return None if where is None else (setup, where)
