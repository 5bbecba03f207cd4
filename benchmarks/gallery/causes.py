"""The ids of the causes, group by group, as the package has them."""

from __future__ import annotations

from pytest_overfit.settings.cause_ids import GROUPS, IDS

__all__ = ["GROUPS", "IDS", "group_of"]


def group_of(cause: str) -> str:
    """The group of an id, which is the category of a bug whose best answer it is."""
    return next(name for name, ids in GROUPS.items() if cause in ids)
