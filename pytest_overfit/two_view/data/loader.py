"""A DataLoader that hands out one pair, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from pytest_overfit.errors import PairError
from pytest_overfit.run.sample import EMPTY, differences_of, first_batch
from pytest_overfit.two_view.data.normalize import normalize_batch


def build_loader(dataset: Dataset[Any], *, pair_index: int = 0, num_workers: int = 0) -> DataLoader[Any]:
    """A loader of exactly one batch: the sample `pair_index`, with a leading axis B = 1.

    Example:
        >>> (batch,) = build_loader(PairDataset("single_pair_data", "single_pair_data/train.npz"))
        >>> batch["images"].shape, batch["seq_name"]
        (torch.Size([1, 2, 3, 476, 518]), ['aerial_megadepth_0001_0'])

    Args:
        dataset: any map-style dataset with a length; `PairDataset` for the embedded data path.
        pair_index: 0 .. len(dataset) - 1.
        num_workers: 0 loads in this process. The bytes are the same whatever the number.

    The loader draws no global random number: iterating over it leaves every generator as it was.

    Raises:
        PairError: no such pair; also what the dataset raises, whose text a worker process wraps in its traceback.
    """
    length = len(cast(Sized, dataset))
    if not 0 <= pair_index < length:
        raise PairError(f"pair_index {pair_index} of {length} pairs", allowed=f"0 .. {length - 1}")
    # With its own generator: DataLoader seeds its workers, and would take that seed from the global one.
    generator = torch.Generator().manual_seed(0)
    return DataLoader(Subset(dataset, [pair_index]), batch_size=1, num_workers=num_workers, generator=generator)


def draw_batch(loader: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Draws the first batch of a loader twice: the first draw normalised, and the differences between the two by key.

    Raises:
        OverfitError: the loader is empty.
    """
    first = first_batch(loader)
    second = next((batch for batch in loader), None)
    return normalize_batch(first), (EMPTY,) if second is None else differences_of(first, second)
