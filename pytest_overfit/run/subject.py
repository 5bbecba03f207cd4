"""What the user hands over for one run: a model, data, a loss, an optimizer, a train step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.record import Generated
from pytest_overfit.settings.settings import AmpConfig, OverfitSettings


class NotGiven:
    """Data that nobody gave: what is trained may bring its own."""


NOT_GIVEN = NotGiven()


@dataclass(frozen=True)
class Subject:
    """What the user hands over, as it was given.

    Args:
        model: a module, a mapping or list of modules, or a factory without arguments that builds one.
        data: a batch, a loader or other iterable of batches, or a callable that returns one; under a config a
            ``Sample``.
        loss: ``loss(model, batch)``, a criterion for (input, target) batches, or None; under a config
            ``loss(predictions, batch)``.
        optimizer: an optimizer, several, or a factory.
        step: the user's own train step.
    """

    model: Any
    data: Any
    loss: Any = None
    optimizer: Any = None
    step: Callable[..., Any] | None = None

    @property
    def callables(self) -> tuple[Any, ...]:
        """What may hold state of the user's besides the model."""
        return self.step, self.loss, self.optimizer, self.data

    def build(self) -> Any:
        """What a factory returns, or the given module or modules themselves."""
        return self.model() if is_factory(self.model) else self.model


def is_factory(model: Any) -> bool:
    """Whether a model can be built afresh: a callable that is no module."""
    return callable(model) and not isinstance(model, nn.Module)


@dataclass(frozen=True)
class Prepared:
    """A subject that can be run: its model is built, and its parts are what a run takes.

    Args:
        listened: which modules of the model are asked, told the batch: those that a train step calls itself; None:
            the model.
        discarded: keys of the batch that the step throws away in so many words: it need not answer to them.
        generated: asked once the model is trained, with the batch and whether generation is a criterion.
        amp: mixed precision where the settings say nothing.
    """

    subject: Subject
    notes: tuple[str, ...] = ()
    amp: AmpConfig | None = None
    listened: Callable[[Any], Any] | None = None
    discarded: tuple[str, ...] = ()
    generated: Callable[[Any, bool], Generated | None] | None = None


Adapter = Callable[[Subject, OverfitSettings], contextlib.AbstractContextManager[Prepared]]


@contextlib.contextmanager
def as_given(subject: Subject, settings: OverfitSettings) -> Iterator[Prepared]:
    """A subject with its model built, and nothing else changed."""
    yield Prepared(replace(subject, model=subject.build()))


def with_data(subject: Subject) -> Subject:
    """The subject itself.

    Raises:
        OverfitError: nobody gave data.
    """
    if subject.data is NOT_GIVEN:
        raise OverfitError(
            f"no data was given, and {type(subject.model).__name__} brings none",
            where="data",
            allowed="a batch (any nest of tensors), a DataLoader or other iterable of batches, or a callable",
        )
    return subject
