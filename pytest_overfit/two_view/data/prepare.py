"""What a trainer does to a batch between its loader and its model, and how it cuts one into parts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.two_view.data.normalize import normalize_batch

VIEWS = ("images", "depths", "extrinsics", "intrinsics", "cam_points", "world_points", "point_masks", "ids")


def prepare_batch(batch: Mapping[str, Any], *, repeat: bool = False) -> dict[str, Any]:
    """The batch as the model gets it: doubled where ``repeat_batch`` asks for it, then normalised.

    Example:
        >>> prepare_batch(next(iter(loader)), repeat=True)["images"].shape          # doctest: +SKIP
        torch.Size([2, 2, 3, 476, 518])

    Raises:
        OverfitError: a key that the normalisation needs is missing.
    """
    return normalize_batch(repeat_batch(batch) if repeat else batch)


def repeat_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Every sample twice: as it is, and with its frames (axis 1) in reverse order. Names are repeated along.

    Example:
        >>> repeat_batch({"ids": torch.tensor([[0, 1]]), "seq_name": ["a"]})
        {'ids': tensor([[0, 1],
                [1, 0]]), 'seq_name': ['a', 'a']}
    """
    doubled = dict(batch)
    for key, value in batch.items():
        if key in VIEWS and isinstance(value, Tensor):
            doubled[key] = torch.cat([value, value.flip(1)])
        elif isinstance(value, list):
            doubled[key] = value * 2
    return doubled


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
        return type(nest)(_part(item, samples, start, end) for item in nest)
    return nest
