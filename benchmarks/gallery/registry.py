"""Every bug of the gallery, file by file."""

from __future__ import annotations

from benchmarks.gallery import architecture, behaviour, data, graph, loop, loss, numerics, optimizer, two_view
from benchmarks.gallery.case import Bug

MODULES = (optimizer, loop, graph, loss, data, numerics, architecture, behaviour, two_view)
BUGS: tuple[Bug, ...] = tuple(value for module in MODULES for value in vars(module).values() if isinstance(value, Bug))
