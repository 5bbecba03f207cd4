"""All causes of ours: every file of ``causes/`` is a family of them, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping

from pytest_overfit.diagnose import causes
from pytest_overfit.diagnose.family import Family

GROUPS = ("optimizer and update", "graph", "loss", "data", "numerics", "architecture", "loop")  # of the docs, in order


def discover() -> tuple[Family, ...]:
    """The ``FAMILY`` of every file of the folder, in their order."""
    names = sorted(module.name for module in pkgutil.iter_modules(causes.__path__))
    modules = (importlib.import_module(f"{causes.__name__}.{name}") for name in names)
    return tuple(sorted((module.FAMILY for module in modules), key=lambda family: family.order))


FAMILIES = discover()


def by_group(families: Iterable[Family]) -> Mapping[str, list[Family]]:
    """Families below the headings of the docs; groups that we do not have come last."""
    groups: dict[str, list[Family]] = {group: [] for group in GROUPS}
    for family in families:
        groups.setdefault(family.group, []).append(family)
    return {group: members for group, members in groups.items() if members}


def ids_of(families: Iterable[Family]) -> Mapping[str, tuple[str, ...]]:
    """The ids that have a section, group by group."""
    grouped = by_group(families).items()
    return {group: tuple(cause for member in members for cause in member.ids) for group, members in grouped}


def sections(families: Iterable[Family]) -> str:
    """Markdown: a heading per group, and below it a section per cause.

    Example:
        >>> print(sections([Family("data", docs="### shop.rare-class\\n\\nA class is rare.")]))
        ## data
        <BLANKLINE>
        ### shop.rare-class
        <BLANKLINE>
        A class is rare.
    """
    parts = []
    for group, members in by_group(families).items():
        parts += [f"## {group}", *(member.lead.strip() for member in members if member.lead)]
        parts += [member.docs.strip() for member in members if member.docs]
    return "\n\n".join(parts)
