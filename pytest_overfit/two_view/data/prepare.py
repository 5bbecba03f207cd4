"""What a trainer does to a batch between its loader and its model."""

from __future__ import annotations

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
