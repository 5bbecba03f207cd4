"""What moved without a gradient, and what did not move that should have; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_overfit.run.record import Load


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
class Moves:
    """The answer to the question what moves, beyond single parameters."""

    rows: tuple[HeldRow, ...] = ()
    averages: tuple[Average, ...] = ()
    drifted: tuple[Drifted, ...] = ()


@dataclass(frozen=True)
class Declared:
    """What the model's own methods and flags say it should be, against what it is."""

    ties: tuple[LostTie, ...] = ()
    freezers: tuple[Freezer, ...] = ()
    loads: tuple[Load, ...] = ()
