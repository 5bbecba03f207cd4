"""The one sample of a run: drawn from a loader, twice, so that a loader that changes it is caught."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pytest_overfit.data.batch import compare_batches, freeze_batch
from pytest_overfit.data.normalize import normalize_batch
from pytest_overfit.errors import OverfitError

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """The one sample that is trained on, as the model gets it (normalised), and the validation sample.

    ``differences`` tells what changed between two draws of the training loader: nothing, for one constant sample.
    """

    train: Batch
    val: Batch | None = None
    differences: tuple[str, ...] = ()


def draw_batch(loader: Iterable[Batch]) -> tuple[Batch, tuple[str, ...]]:
    """Draws the first batch of a loader twice: the first draw normalised, and the differences between the two by key.

    Raises:
        OverfitError: the loader is empty.
    """
    first = first_batch(loader)
    second = next((batch for batch in loader), None)
    if second is None:
        return normalize_batch(first), ("the second draw is empty: a loader that can be drawn twice is wanted",)
    differences = tuple(difference.describe() for difference in compare_batches(first, second))
    return normalize_batch(first), differences


def first_batch(loader: Iterable[Batch]) -> Batch:
    """A copy of the first batch of a loader, on the CPU.

    Raises:
        OverfitError: the loader is empty.
    """
    for batch in loader:
        return freeze_batch(batch, torch.device("cpu"))
    raise OverfitError("the loader gives no batch", where="loader", allowed="an iterable of at least one batch")
