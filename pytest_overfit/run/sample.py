"""The one sample of a run: drawn from a loader, twice, so that a loader that changes it is caught."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.batch import freeze_batch, is_carrier, named_tensors
from pytest_overfit.run.batch_differences import compare_batches
from pytest_overfit.untrusted.objects import attributes, defines, is_a

Batch = Mapping[str, Any]
DRAWS = 4  # of data in memory; a loader with workers takes its time to start
LOADER_DRAWS = 2
MOST_SHAPES = 4
EMPTY = "the second draw is empty: a loader that can be drawn twice is wanted"


@dataclass(frozen=True)
class Sample:
    """The one batch that is trained on, and the one that is evaluated on.

    ``differences`` tells what changed between ``draws`` draws of the data: nothing, for one constant batch.
    ``randomness`` are sentences on why, ``notes`` what else there is to say of the data.
    ``look`` measures what only they can tell: the batch beside the files that it was made of.
    """

    train: Any
    val: Any = None
    differences: tuple[str, ...] = ()
    randomness: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    draws: int = 1
    look: Callable[[], Any] | None = None


def _wanted(function: Callable[..., Any]) -> list[str]:
    """The arguments that a function cannot be called without; none where that cannot be told."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [each.name for each in parameters if each.default is each.empty and each.kind not in kinds]


def draw(data: Any) -> Sample:
    """One batch out of a batch, a loader or other iterable of batches, or a callable that returns the next one.

    Example:
        >>> draw(DataLoader(dataset, batch_size=2, shuffle=True)).differences     # doctest: +SKIP
        ('0: 6 of 6 elements differ, by up to 3.1', '1: 2 of 2 elements differ, by up to 1')

    Loaders and callables are drawn ``DRAWS`` times, a loader with workers twice. Their samplers and generators are
    used as they are.

    Raises:
        OverfitError: there is no batch to be had.
    """
    if isinstance(data, Sample):
        return data
    if is_batch(data):
        return Sample(data)
    if callable(data) and not defines(data, "__iter__"):
        if wanted := _wanted(data):
            raise OverfitError(
                f"a function of ({', '.join(wanted)}) where a batch is wanted",
                where="batch",
                allowed="a batch, a loader or another iterable of batches, or a callable without arguments",
            )
        first = freeze_batch(data(), torch.device("cpu"))
        differences = _first_differences(first, (data() for _ in range(DRAWS - 1)))
        return Sample(first, differences=differences, draws=DRAWS)
    _refuse_strangers(data)
    iterator = iter(data)
    first = first_batch(iterator)
    if iterator is data:
        return Sample(first, notes=("the data are an iterator: they cannot be drawn twice and compared",))
    second = next(iter(data), None)
    if second is None:
        return Sample(first, differences=(EMPTY,))
    again = (LOADER_DRAWS if attributes(data).get("num_workers") else DRAWS) - 2
    later = (batch for _ in range(again) if (batch := next(iter(data), None)) is not None)
    differences = _first_differences(first, itertools.chain((second,), later))
    return Sample(first, differences=differences, draws=2 + again)


def drawn_once(data: Any) -> Any:
    """The first batch of an iterator, which gives it once, for all runs that begin with it; anything else as it is."""
    return draw(data) if defines(data, "__next__") else data


def one_batch(data: Any, *, where: str = "data") -> Any:
    """The first batch of a batch, a loader or other iterable of batches, or a callable that returns one.

    Raises:
        OverfitError: there is no batch to be had.
    """
    if isinstance(data, Sample):
        return data.train
    if is_batch(data):
        return data
    if callable(data) and not defines(data, "__iter__"):
        if wanted := _wanted(data):
            raise OverfitError(
                f"a function of ({', '.join(wanted)}) where a batch is wanted",
                where="batch",
                allowed="a batch, a loader or another iterable of batches, or a callable without arguments",
            )
        return data()
    _refuse_strangers(data, where)
    return first_batch(data, where=where)


def is_batch(data: Any) -> bool:
    """Whether this is a batch itself, rather than something that hands out batches."""
    if data is None or is_a(data, torch.Tensor, Mapping, list, tuple, PackedSequence):
        return True
    if not dataclasses.is_dataclass(type(data)) and not is_carrier(data):
        return False
    return not defines(data, "__iter__") or any(True for _ in named_tensors(data))  # a loader may look like one


def refuse_no_samples(batch: Any) -> None:
    """A mean over nothing is NaN, and a sum is learned already.

    Raises:
        OverfitError: every tensor of the batch that has axes is without elements.
    """
    sized = [(name, tensor) for name, tensor in named_tensors(batch) if tensor.dim()]
    if sized and not any(tensor.numel() for _, tensor in sized):
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sized[:MOST_SHAPES])
        raise OverfitError(
            f"a batch without samples: {shapes}",
            where="batch",
            allowed="at least one sample",
            hint="look at what selects the samples, such as a split, a filter or a mask: it left none",
        )


def _refuse_strangers(data: Any, where: str = "data") -> None:
    if not defines(data, "__iter__"):
        raise OverfitError(
            f"a {type(data).__name__} where data is wanted",
            where=where,
            allowed="a batch (any nest of tensors), a DataLoader or other iterable of batches, or a callable",
        )


def _first_differences(first: Any, others: Iterable[Any]) -> tuple[str, ...]:
    """What the first of the others that differs at all differs in: a jitter of few values may repeat itself."""
    return next((found for other in others if (found := differences_of(first, other))), ())


def differences_of(first: Any, second: Any) -> tuple[str, ...]:
    """One line for every tensor in which two batches differ."""
    return tuple(difference.describe() for difference in compare_batches(first, second))


def first_batch(loader: Iterable[Batch], *, where: str = "loader") -> Batch:
    """A copy of the first batch of a loader, on the CPU.

    Raises:
        OverfitError: the loader is empty.
    """
    for batch in loader:
        return freeze_batch(batch, torch.device("cpu"))
    raise OverfitError("the loader gives no batch", where=where, allowed="an iterable of at least one batch")
