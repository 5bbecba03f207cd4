"""Every case of the gallery: the bugs, file by file, and the healthy families."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from benchmarks.gallery import architecture, behaviour, data, declared, graph, loop, loss, numerics, optimizer, two_view
from benchmarks.gallery.case import Bug
from benchmarks.gallery.families import FAMILIES

MODULES = (optimizer, loop, graph, declared, loss, data, numerics, architecture, behaviour, two_view)


def bugs_of(module: ModuleType) -> tuple[Bug, ...]:
    """The bugs of one file, as they stand there."""
    return tuple(value for value in vars(module).values() if isinstance(value, Bug))


BUGS: tuple[Bug, ...] = tuple(bug for module in MODULES for bug in bugs_of(module))
CASES: Mapping[str, Bug | None] = {**{bug.case: bug for bug in BUGS}, **dict.fromkeys(FAMILIES)}
"""A bug by family/name, and ``None``, which is no mistake at all, by the name of a healthy family."""
PLACES: Mapping[str, str] = {
    **{bug.case: f"{bug.kind} {module.__name__}" for module in MODULES for bug in bugs_of(module)},
    **dict.fromkeys(FAMILIES, "healthy"),
}
"""The kind and the file of a case, over which a sample is spread."""
