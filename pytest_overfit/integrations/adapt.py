"""Which library an object comes from, told by its classes alone, and the adapter that knows that library."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pytest_overfit.run.subject import Prepared, Subject, is_factory
from pytest_overfit.settings.settings import OverfitSettings

# (module, class) -> the room below that has ``prepared`` and ``brings_data``.
HOMES = {
    ("pytorch_lightning.core.module", "LightningModule"): "lightning.adapter",
    ("lightning.pytorch.core.module", "LightningModule"): "lightning.adapter",
    ("transformers.trainer", "Trainer"): "huggingface.trainer",
    ("transformers.modeling_utils", "PreTrainedModel"): "huggingface.model",
}


@contextlib.contextmanager
def adapt(subject: Subject, settings: OverfitSettings) -> Iterator[Prepared]:
    """A subject as parts that a run takes; what was done to the given objects for that is undone after the block.

    Example:
        >>> with adapt(Subject(lightning_module, batch), settings) as prepared:     # doctest: +SKIP
        ...     prepared.subject.step(batch)

    Whatever belongs to no library known here is taken as it is.
    """
    subject = replace(subject, model=subject.build())
    home = home_of(subject.model)
    if home is None:
        yield Prepared(subject)
        return
    with importlib.import_module(f"pytest_overfit.integrations.{home}").prepared(subject, settings) as prepared:
        yield prepared


def may_bring_data(model: Any) -> bool:
    """Whether something to be trained may need no data beside it: a factory might build such a thing.

    Example:
        >>> may_bring_data(torch.nn.Linear(1, 1))
        False
    """
    if is_factory(model):
        return True
    home = home_of(model)
    return home is not None and bool(importlib.import_module(f"pytest_overfit.integrations.{home}").brings_data(model))


def home_of(thing: Any) -> str | None:
    """The room that knows an object; None for a stranger."""
    return next(
        (HOMES[key] for kind in type(thing).__mro__ if (key := (kind.__module__, kind.__name__)) in HOMES), None
    )
