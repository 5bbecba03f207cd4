"""The criteria that there are, in the order in which they are reported; a new one is named here or by an entry point.

Names are known without importing anything: a criterion's module is imported where its setting, its judge or its docs
are asked for. Those of configs alone are never imported by a run without one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from pytest_overfit.errors import OverfitError
from pytest_overfit.settings.criterion import Criterion

GROUP = "pytest_overfit.criteria"
# Keys beside the criteria in ``overfit.criteria``: further limits, and what is declared to be meant.
BESIDE = ("terms", "unused", "frozen", "infinite", "unbounded", "stochastic", "allow")


@dataclass(frozen=True)
class Entry:
    """Where a criterion is.

    Args:
        home: ``package.module:ATTRIBUTE``.
        limit: it is a limit on the loss term of its name, also called ``loss_<name>``.
        config_only: it is judged under a config alone. Without one such a limit is one on any term.
    """

    name: str
    home: str
    limit: bool = False
    config_only: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it comes with this package."""
        return self.home.startswith("pytest_overfit.")

    def load(self) -> Criterion:
        """The criterion itself.

        Raises:
            OverfitError: its package cannot be imported, or gives something else.
        """
        return _load(self)


BUILT_IN = (
    Entry("supervised", "pytest_overfit.judge.supervised:SUPERVISED"),
    Entry("constant_batch", "pytest_overfit.judge.constant_batch:CONSTANT_BATCH"),
    Entry("finite", "pytest_overfit.judge.finite:FINITE"),
    Entry("gradients", "pytest_overfit.judge.gradients:GRADIENTS"),
    Entry("objective", "pytest_overfit.judge.limits:OBJECTIVE", limit=True),
    Entry("camera", "pytest_overfit.two_view.frame_criteria:CAMERA", limit=True, config_only=True),
    Entry("depth", "pytest_overfit.two_view.frame_criteria:DEPTH", limit=True, config_only=True),
    Entry("monotonic", "pytest_overfit.judge.monotonic:MONOTONIC"),
    Entry("train_val", "pytest_overfit.judge.train_val:TRAIN_VAL"),
    Entry("prediction", "pytest_overfit.two_view.frame_criteria:PREDICTION", config_only=True),
    Entry("twins", "pytest_overfit.judge.twins_agree:TWINS_AGREE"),
    Entry("generates", "pytest_overfit.judge.generates:GENERATES"),
)
LAST = Entry("defects", "pytest_overfit.diagnose.defects:DEFECTS")


@functools.cache
def entries() -> Mapping[str, Entry]:
    """Every criterion by name, in the order of the report; those of other packages before the last one.

    Raises:
        OverfitError: another package takes a name that is taken.
    """
    found = {entry.name: entry for entry in BUILT_IN}
    for point in entry_points(group=GROUP):
        if point.name in (*found, LAST.name, *BESIDE) or not point.name.isidentifier():
            where = f"entry point group {GROUP}"
            allowed = "a Python name that no other criterion has"
            raise OverfitError(f"a criterion named {point.name!r}, from {point.value}", where=where, allowed=allowed)
        found[point.name] = Entry(point.name, point.value)
    return {**found, LAST.name: LAST}


@functools.cache
def limit_aliases() -> Mapping[str, str]:
    """The names that a VGGT-style trainer logs for the headline limits.

    Example:
        >>> limit_aliases()["loss_camera"]
        'camera'
    """
    return {f"loss_{name}": name for name, entry in entries().items() if entry.limit}


@functools.cache
def _load(entry: Entry) -> Criterion:
    if entry.is_ours:
        module, _, attribute = entry.home.partition(":")
        return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
    try:
        criterion = EntryPoint(entry.name, entry.home, GROUP).load()
    except Exception as error:
        found = f"the criterion {entry.name} cannot be imported, {type(error).__name__}: {error}"
        raise OverfitError(found, where=entry.home, hint="mend or remove its package") from error
    if not isinstance(criterion, Criterion) or criterion.name != entry.name:
        raise OverfitError(
            f"a {type(criterion).__name__}", where=entry.home, allowed=f"a Criterion named {entry.name!r}"
        )
    return criterion
