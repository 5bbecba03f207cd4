"""What the padding of a batch, and the documents of its rows, move; no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaddingRead:
    """How far the outputs of a padded ``row`` move, relative to their size, once it is asked without its padding.

    ``told``: the argument of the model that says what is padding, a mask or lengths. They move by no more than ``left``
    once it is ``mended``. ``where``: the one module of its kind that lets padding through. ``objective``: its value,
    and that with other content under what ``key`` of the batch says is padding, where they differ; then the outputs of
    places that are none move by ``beside`` of their size.
    """

    row: int
    moved: float
    told: str = ""
    mended: str = ""
    left: float = 0.0
    where: str = ""
    objective: tuple[float, float] | None = None
    key: str = ""
    beside: float = 0.0


@dataclass(frozen=True)
class Packed:
    """How far the first of several ``documents`` of a row, which ``told`` sets apart, moves the outputs of the rest."""

    told: str
    documents: int
    moved: float
    where: str = ""
