"""Workers of a DataLoader: the same batch with none and with two, and other random numbers in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from pytest_overfit.errors.asking import Unanswerable, users_code
from pytest_overfit.run.batch import fingerprint
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.sample import differences_of
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.twins.elsewhere import cannot_fork
from pytest_overfit.twins.side import Side

WORKERS = 2
BATCHES = 4  # that are looked at of a stream


def workers(side: Side) -> Iterator[Callable[[], TwinResult]]:
    """The first batch, drawn in this process and by two workers; and what two workers draw at random."""
    data = side.subject.data
    if not isinstance(data, DataLoader):
        raise Unanswerable("the data are no DataLoader")
    if why := cannot_fork():
        raise Unanswerable(why)
    if isinstance(data.dataset, IterableDataset):
        yield lambda: _stream(side, data)
        return
    yield lambda: _same_batch(side, data)
    yield lambda: _seeds(data)


def _parts(data: DataLoader[Any]) -> dict[str, Any]:
    return {"collate_fn": data.collate_fn, "worker_init_fn": data.worker_init_fn}


def _batches(seed: int, data: DataLoader[Any], count: int, *, workers: int, **order: Any) -> list[Any]:
    """The first batches of a loader like this one."""
    seed_everything(seed)
    again: DataLoader[Any] = DataLoader(
        data.dataset,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        generator=torch.Generator().manual_seed(seed),
        **_parts(data),
        **order,
    )
    with users_code():
        iterator = iter(again)
        found = [batch for _, batch in zip(range(count), iterator, strict=False)]
    del iterator
    return found


def _same_batch(side: Side, data: DataLoader[Any]) -> TwinResult:
    """Of an order that is fixed before any worker starts."""
    seed = side.context.seed
    seed_everything(seed)
    order = next(iter(data.batch_sampler), []) if data.batch_sampler is not None else [next(iter(data.sampler))]
    (here,) = _batches(seed, data, 1, workers=0, batch_sampler=[list(order)])
    (again,) = _batches(seed, data, 1, workers=0, batch_sampler=[list(order)])
    told = TwinResult("workers", "agreed", "the first batch by 2 workers in place of none")
    (there,) = _batches(seed, data, 1, workers=WORKERS, batch_sampler=[list(order)])
    if not (found := differences_of(here, there)):
        return told
    (other,) = _batches(seed + 1, data, 1, workers=0, batch_sampler=[list(order)])
    if differences_of(here, again) or differences_of(here, other):
        raise Unanswerable("the dataset draws random numbers: a worker draws others")
    return replace(told, outcome="disagreed", what=f"the batch ({found[0]})")


def _seeds(data: DataLoader[Any]) -> TwinResult:
    """One item four times: the first and the third by one worker, the others by the other."""
    first = next(iter(data.sampler))
    items = _batches(0, data, 4, workers=WORKERS, batch_sampler=[[first]] * 4)
    one, other, again, _ = map(fingerprint, items)
    told = TwinResult("workers (seeds)", "agreed", "one item by two workers")
    if one == again:
        raise Unanswerable("the dataset draws no random numbers")
    if one != other:
        return told
    what = "nothing: both workers draw the same random numbers, which"
    return replace(told, outcome="disagreed", what=what)


def _stream(side: Side, data: DataLoader[Any]) -> TwinResult:
    """Two workers share a stream: neither gives what the other gives."""
    order = {"batch_size": data.batch_size, "drop_last": data.drop_last}
    seed = side.context.seed
    here = [fingerprint(each) for each in _batches(seed, data, BATCHES, workers=0, **order)]
    there = [fingerprint(each) for each in _batches(seed, data, BATCHES, workers=WORKERS, **order)]
    told = TwinResult("workers", "agreed", "a stream by 2 workers in place of none")
    if len({*here}) < len(here):
        raise Unanswerable("the stream repeats itself")
    twice = [index for index, each in enumerate(there) if each in there[:index]]
    if not twice:
        return told
    return replace(told, outcome="disagreed", what=f"batch {twice[0]} of the stream is given by both workers, and")
