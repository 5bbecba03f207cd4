"""Which samples teach, and by whose target, as plain numbers; no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """Which ``samples`` teach, and by whose target.

    ``silent`` are those along whose rows of the outputs the objective has no slope, whatever they hold; of ``wrong``
    (sample, other one) the rows of ``output`` are held against the ``target`` of the other one. ``paired``: all rows
    are held against their own; None where that is not certain. No row of any output is made of ``unread`` ones.
    ``by_target``: not with the inputs of other samples either.
    ``alone``: something of the batch moves the silent rows, and no other ones.
    """

    samples: int
    silent: tuple[int, ...] = ()
    paired: bool | None = None
    wrong: tuple[tuple[int, int], ...] = ()
    output: str = ""
    target: str = ""
    unread: tuple[int, ...] = ()
    alone: bool = False
    by_target: bool = False
    cut: str = ""  # places at one end of an output, within a sample, that have a target and no slope
    owned: tuple[str, str] | None = None  # an output of which single rows answer to several samples of a tensor


@dataclass(frozen=True)
class Turned:
    """A ``corner`` of ``given`` reaches an ``output`` at ``near`` alone, that of ``target`` is held against ``held``.

    Corners are 0 or -1 along every axis of places. ``drawn``: that is so by chance, and otherwise at other times.
    """

    given: str
    target: str
    output: str
    corner: tuple[int, ...]
    near: tuple[int, ...]
    held: tuple[int, ...]
    drawn: bool = False


@dataclass(frozen=True)
class WholeNumbers:
    """A tensor of the batch of which the whole numbers alone are read: its values, and what is left of them."""

    key: str
    values: int
    left: int


@dataclass(frozen=True)
class LeftGraphs:
    """Edges (2, E) of several graphs that have not been moved on by the nodes before their own.

    Args:
        owners: the tensor (N,) that has the graph of every node.
        left: graphs of several nodes that have no edge so.
        nodes: the first ones, that all edges go between.
    """

    edges: str
    owners: str
    count: int
    graphs: int
    left: int
    nodes: int
