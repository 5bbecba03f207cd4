"""The loss of a batch that a trainer cuts into parts: the mean over the parts, as accumulated gradients have it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pytest_overfit.run.task import scalar_terms


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
        names = dict.fromkeys(name for terms in losses for name in terms)  # a part may have nothing for one
        return {name: sum(terms[name] for terms in losses if name in terms) / self.parts for name in names}


def split_samples(nest: Any, samples: int, parts: int) -> list[Any]:
    """A nest of tensors cut along its leading axis of ``samples`` into ``parts``; other leaves go into every part.

    Example:
        >>> split_samples({"x": torch.arange(4), "names": ["a", "b", "c", "d"], "stages": 3}, 4, 2)[1]
        {'x': tensor([2, 3]), 'names': ['c', 'd'], 'stages': 3}
    """
    return [_part(nest, samples, start, end) for start, end in _bounds(samples, parts)]


def _bounds(samples: int, parts: int) -> list[tuple[int, int]]:
    edges = [round(samples * index / parts) for index in range(parts + 1)]
    return list(itertools.pairwise(edges))


def _part(nest: Any, samples: int, start: int, end: int) -> Any:
    if isinstance(nest, Tensor):
        return nest[start:end] if nest.dim() and nest.shape[0] == samples else nest
    if isinstance(nest, Mapping):
        return {key: _part(value, samples, start, end) for key, value in nest.items()}
    if isinstance(nest, (list, tuple)):
        if len(nest) == samples and not any(isinstance(item, Tensor) for item in nest):
            return nest[start:end]
        made = [_part(item, samples, start, end) for item in nest]
        return type(nest)(*made) if hasattr(nest, "_fields") else type(nest)(made)
    return nest
