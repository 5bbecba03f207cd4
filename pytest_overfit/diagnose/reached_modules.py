"""Which modules and outputs each term of a loss reaches, and what it reads without a gradient. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """A term and a module that learns: the norm of the term's gradient there, None where its graph never gets there.

    ``moved``: how far the term moves, relative to its size, once the module's weights do by a hundredth; asked where
    it has no gradient. ``cut`` is the line that takes the module out of its graph, where one was seen.
    """

    term: str
    module: str
    gradient: float | None
    moved: float | None = None
    cut: str = ""

    @property
    def text(self) -> str:
        """A cell of the table."""
        if self.gradient is not None:
            return f"{self.gradient:.2g}"
        return "-" if not self.moved else f"none, reads it ({self.moved:.0%})"


@dataclass(frozen=True)
class Unfelt:
    """An output that the objective has no gradient along, and the terms that ``moves`` with its values.

    ``moved``: how far the objective does, relative to its size; ``cut`` is the line that takes it out of the graph.
    """

    output: str
    moves: tuple[str, ...]
    moved: float
    cut: str = ""


@dataclass(frozen=True)
class Influence:
    """The table of terms and modules, row by row."""

    reaches: tuple[Reach, ...]
