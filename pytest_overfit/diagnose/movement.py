"""What moved without a gradient, and what did not move that should have; no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_overfit.run.record import Load

RATE = re.compile(r"(^|_)(lr|rate)(_|$)", re.IGNORECASE)  # of a key


@dataclass(frozen=True)
class HeldRow:
    """A row of a table that the batch looks up: the loss wants it changed, its gradient is zero, and it stays.

    ``lookups`` counts the places of the batch, ``padding`` says that the lookup names it as its padding. ``alone``:
    there is no sequence around it, so that it is all that its sample has of the table.
    """

    parameter: str
    row: int
    lookups: int
    padding: bool
    alone: bool


@dataclass(frozen=True)
class IdleRows:
    """A layer's weight of which ``idle`` of ``rows``, output features, never had a gradient, and the others had.

    ``run`` has the first and the last row of the first run of them; all runs begin and end at multiples of ``unit``.
    """

    parameter: str
    rows: int
    idle: int
    run: tuple[int, int]
    unit: int


@dataclass(frozen=True)
class LostTie:
    """Two tensors that are to be one, by what says so; ``apart`` is their largest difference at the end."""

    first: str
    second: str
    said_by: str
    apart: float


@dataclass(frozen=True)
class Average:
    """A copy of the weights that is called an average: ``stayed`` of its ``tensors`` are still the initial weights."""

    name: str
    stayed: int
    tensors: int


@dataclass(frozen=True)
class TaughtCopy:
    """What is called a target or a teacher, begins as a copy of ``of``, and is moved by ``tensors`` gradients."""

    name: str
    of: str
    tensors: int


@dataclass(frozen=True)
class Carried:
    """A ``module`` of a ``kind`` that answers one input otherwise in its next call, in evaluation mode.

    ``moved`` is how far the outputs of the model do, relative to their size.
    """

    module: str
    kind: str
    moved: float


@dataclass(frozen=True)
class UnreadSetting:
    """A ``key`` in which the parameter groups of an ``optimizer`` differ, and that nothing reads."""

    optimizer: str
    key: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Freezer:
    """A method that nobody has called and that would freeze ``parameters``; ``asked_by`` a flag of its module's."""

    method: str
    parameters: tuple[str, ...]
    asked_by: str = ""


@dataclass(frozen=True)
class Withheld:
    """The frozen ``parameters`` to which the objective of a failed run would have a gradient."""

    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Coasting:
    """How far 50 steps without a gradient move a weight at the end, relative to its size, and how much they grow."""

    parameter: str
    moved: float
    grows: float


@dataclass(frozen=True)
class Drifted:
    """Running statistics of a module whose parameters are frozen: ``moved`` in deviations of what they describe."""

    module: str
    buffers: tuple[str, ...]
    moved: float


@dataclass(frozen=True)
class Written:
    """A ``parameter`` that every pass in evaluation mode moves, by so much of its size."""

    parameter: str
    moved: float


@dataclass(frozen=True)
class FreeScale:
    """Scalars without a part in any output; ``times`` their way through the run brings ``start`` to ``reached``.

    Both are the objective of the model as it was before the first step.
    """

    scalars: tuple[str, ...]
    start: float
    times: float = 0.0
    reached: float = 0.0


@dataclass(frozen=True)
class Moves:
    """The answer to the question what moves, beyond single parameters."""

    rows: tuple[HeldRow, ...] = ()
    averages: tuple[Average, ...] = ()
    drifted: tuple[Drifted, ...] = ()
    taught: tuple[TaughtCopy, ...] = ()
    unread: tuple[UnreadSetting, ...] = ()
    idle: tuple[IdleRows, ...] = ()


@dataclass(frozen=True)
class Declared:
    """What the model's own methods and flags say it should be, against what it is.

    ``backwards``: modules with a method ``backward`` that takes a gradient, as autograd functions have.
    """

    ties: tuple[LostTie, ...] = ()
    freezers: tuple[Freezer, ...] = ()
    loads: tuple[Load, ...] = ()
    backwards: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConstantAnswer:
    """``reached``: the objective of the trained model with the mean of all targets in place of every prediction.

    ``key`` names targets that differ, by a ``deviation``.
    """

    key: str
    deviation: float
    reached: float
