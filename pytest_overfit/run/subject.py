"""What the user hands over for one run: a model, data, a loss, an optimizer, a train step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


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
