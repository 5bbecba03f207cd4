"""The one sample of a run: drawn from a loader, twice, so that a loader that changes it is caught."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.batch import compare_batches, freeze_batch, is_carrier
from pytest_overfit.two_view.data.normalize import normalize_batch
from pytest_overfit.untrusted.objects import attributes, defines, is_a

Batch = Mapping[str, Any]
DRAWS = 4  # of data in memory; a loader with workers takes its time to start
LOADER_DRAWS = 2


@dataclass(frozen=True)
class Drawn:
    """One batch of whatever the user gave, what a further draw differs in, and what there is to say about it."""

    batch: Any
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    draws: int = 1


def draw(data: Any) -> Drawn:
    """One batch out of a batch, a loader or other iterable of batches, or a callable that returns the next one.

    Example:
        >>> draw(DataLoader(dataset, batch_size=2, shuffle=True)).differences     # doctest: +SKIP
        ('0: 6 of 6 elements differ, by up to 3.1', '1: 2 of 2 elements differ, by up to 1')

    Loaders and callables are drawn ``DRAWS`` times, a loader with workers twice. Their samplers and generators are
    used as they are.

    Raises:
        OverfitError: there is no batch to be had.
    """
    if is_batch(data):
        return Drawn(data)
    if callable(data) and not defines(data, "__iter__"):
        first = freeze_batch(data(), torch.device("cpu"))
        return Drawn(first, _first_differences(first, (data() for _ in range(DRAWS - 1))), draws=DRAWS)
    if not defines(data, "__iter__"):
        raise OverfitError(
            f"a {type(data).__name__} where data is wanted",
            where="data",
            allowed="a batch (any nest of tensors), a DataLoader or other iterable of batches, or a callable",
        )
    iterator = iter(data)
    first = first_batch(iterator)
    if iterator is data:
        return Drawn(first, notes=("the data are an iterator: they cannot be drawn twice and compared",))
    second = next(iter(data), None)
    if second is None:
        return Drawn(first, ("the second draw is empty: a loader that can be drawn twice is wanted",))
    again = (LOADER_DRAWS if attributes(data).get("num_workers") else DRAWS) - 2
    later = (batch for _ in range(again) if (batch := next(iter(data), None)) is not None)
    return Drawn(first, _first_differences(first, itertools.chain((second,), later)), draws=2 + again)


def is_batch(data: Any) -> bool:
    """Whether this is a batch itself, rather than something that hands out batches."""
    if data is None or is_a(data, torch.Tensor, Mapping, list, tuple, PackedSequence):
        return True
    return dataclasses.is_dataclass(type(data)) or is_carrier(data)


def _first_differences(first: Any, others: Iterable[Any]) -> tuple[str, ...]:
    """What the first of the others that differs at all differs in: a jitter of few values may repeat itself."""
    return next((found for other in others if (found := differences_of(first, other))), ())


def differences_of(first: Any, second: Any) -> tuple[str, ...]:
    return tuple(difference.describe() for difference in compare_batches(first, second))


@dataclass(frozen=True)
class Sample:
    """The one sample that is trained on, as the model gets it (normalised), and the validation sample.

    ``differences`` tells what changed between ``draws`` draws of the training loader: nothing, for one constant sample.
    ``randomness`` are sentences on why, ``notes`` what else there is to say of the data and of the model they go into.
    """

    train: Batch
    val: Batch | None = None
    differences: tuple[str, ...] = ()
    randomness: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    draws: int = 1


def draw_batch(loader: Iterable[Batch]) -> tuple[Batch, tuple[str, ...]]:
    """Draws the first batch of a loader twice: the first draw normalised, and the differences between the two by key.

    Raises:
        OverfitError: the loader is empty.
    """
    first = first_batch(loader)
    second = next((batch for batch in loader), None)
    if second is None:
        return normalize_batch(first), ("the second draw is empty: a loader that can be drawn twice is wanted",)
    return normalize_batch(first), differences_of(first, second)


def first_batch(loader: Iterable[Batch]) -> Batch:
    """A copy of the first batch of a loader, on the CPU.

    Raises:
        OverfitError: the loader is empty.
    """
    for batch in loader:
        return freeze_batch(batch, torch.device("cpu"))
    raise OverfitError("the loader gives no batch", where="loader", allowed="an iterable of at least one batch")
