"""Which library an object comes from, told by its classes alone, and the adapter that knows that library."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from pytest_overfit.run.subject import Subject, is_factory
from pytest_overfit.settings.settings import OverfitSettings

GROUP = "pytest_overfit.adapters"
# Dotted name of a class -> the module with ``prepared(subject, settings)``, a context manager of a subject that a run
# takes, and ``brings_data(thing)``; where the class is no module itself, with ``module_of(thing)`` too.
BUILT_IN = {
    "pytorch_lightning.core.module.LightningModule": "pytest_overfit.integrations.lightning.adapter",
    "lightning.pytorch.core.module.LightningModule": "pytest_overfit.integrations.lightning.adapter",
    "transformers.trainer.Trainer": "pytest_overfit.integrations.huggingface.trainer_parts",
    "transformers.modeling_utils.PreTrainedModel": "pytest_overfit.integrations.huggingface.pretrained",
}


@functools.cache
def adapters() -> Mapping[str, str]:
    """Dotted name of a class -> the module that adapts it: ours, and those of entry points named like such classes."""
    return {**{point.name: point.value for point in entry_points(group=GROUP)}, **BUILT_IN}


@contextlib.contextmanager
def adapt(subject: Subject, settings: OverfitSettings) -> Iterator[Subject]:
    """A subject that a run takes; what was done to the given objects for that is undone after the block.

    Whatever belongs to no library known here is taken as it is.
    """
    subject = subject.built()
    home = home_of(subject.model)
    if home is None:
        yield subject
        return
    with import_module(home).prepared(subject, settings) as adapted:
        yield adapted


def may_bring_data(model: Any) -> bool:
    """Whether something to be trained may need no data beside it: a factory might build such a thing.

    Example:
        >>> may_bring_data(torch.nn.Linear(1, 1))
        False
    """
    if is_factory(model):
        return True
    home = home_of(model)
    return home is not None and bool(import_module(home).brings_data(model))


def module_of(thing: Any) -> Any:
    """The module in what was handed over, such as that of a ``transformers.Trainer``; else the thing itself."""
    home = home_of(thing)
    found = None if home is None else getattr(import_module(home), "module_of", None)
    return thing if found is None else found(thing)


def home_of(thing: Any) -> str | None:
    """The module that adapts an object; None for a stranger."""
    names = (f"{kind.__module__}.{kind.__name__}" for kind in type(thing).__mro__)
    return next((adapters()[name] for name in names if name in adapters()), None)
