"""The loss of a batch that a trainer cuts into parts: the mean over the parts, as accumulated gradients have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pytest_overfit.run.task import scalar_terms
from pytest_overfit.two_view.data.prepare import split_samples


class Accumulated:
    """``loss(predictions, batch)`` over the parts of a batch.

    Gradients of parts that are divided by their number and added up are those of the parts' mean loss. A model whose
    samples see each other (batch statistics) still sees the whole batch here, which a trainer's would not.

    Example:
        >>> loss = Accumulated(lambda predictions, batch: {"objective": predictions["x"].mean()}, parts=2)
        >>> loss({"x": torch.tensor([1.0, 3.0])}, {"images": torch.zeros(2)})["objective"]
        tensor(2.)
    """

    def __init__(self, loss: Callable[[Any, Mapping[str, Any]], Any], parts: int) -> None:
        self.loss, self.parts = loss, parts

    def __call__(self, predictions: Any, batch: Mapping[str, Any]) -> Any:
        samples = len(batch["images"])
        if samples < self.parts:
            return self.loss(predictions, batch)
        parts, targets = (split_samples(nest, samples, self.parts) for nest in (predictions, batch))
        losses = [scalar_terms(self.loss(part, target)) for part, target in zip(parts, targets, strict=True)]
        return {name: sum(terms[name] for terms in losses) / self.parts for name in losses[0]}


def inner_loss(loss: Any) -> Any:
    """The user's own loss, which may hold state."""
    return loss.loss if isinstance(loss, Accumulated) else loss
