"""torch_geometric: nodes, edges, whole graphs, several kinds of nodes, and points in space."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.torch_geometric import graphs, kinds, links, nodes, points


def programs() -> Iterator[Program]:
    """By what is learned."""
    for each in (nodes, graphs, links, kinds, points):
        yield from each.programs()
