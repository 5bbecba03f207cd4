"""Pairs of a split as samples of a torch Dataset, and the DataLoader that hands out one of them, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from pytest_overfit.errors import PairError
from pytest_overfit.run.sample import EMPTY, differences_of, first_batch
from pytest_overfit.two_view.data.normalize import normalize_batch
from pytest_overfit.two_view.data.transform import process_view, target_shape
from pytest_overfit.two_view.pair.index import locate_pair, read_index
from pytest_overfit.two_view.pair.pair_files import FollowLinks
from pytest_overfit.two_view.pair.readers import read_view


class PairDataset(Dataset[dict[str, Any]]):
    """Every pair of a split file, each one sample of two views, without augmentation.

    Example:
        >>> dataset = PairDataset("pair", "pair/train.npz", "pair/seg")  # doctest: +SKIP
        >>> dataset[0]["images"].shape  # doctest: +SKIP
        torch.Size([2, 3, 476, 518])

    Args:
        root: folder of the scenes.
        split_file: the index of pairs, a path of its own (not below `root`).
        segmentation_root: folder of the ADE20K labels; None removes no sky.
        img_size, patch_size, aspect_ratio: as in `target_shape`.
        remove_sky, max_depth, depth_percentile, half_pixel_depth: as in `process_view`.
        follow_links: as in `locate_pair`.

    An item holds, with S = 2, float32 unless said otherwise: `images` (S, 3, H, W) RGB in 0..1, no mean and deviation;
    `depths` (S, H, W) metres, 0 = invalid; `extrinsics` (S, 3, 4) world2cam, OpenCV axes; `intrinsics` (S, 3, 3)
    pixels; `cam_points`, `world_points` (S, H, W, 3) metres; `point_masks` (S, H, W) bool; `seq_name` str; `ids` (S,)
    int64, the place of the view in the pair.

    Raises:
        ConfigError: `img_size`, `aspect_ratio` and `patch_size` do not fit together.
        PairError: a file is missing, unreadable or inconsistent. There is no dummy sample: a failed load is an error.
    """

    def __init__(
        self,
        root: str | Path,
        split_file: str | Path,
        segmentation_root: str | Path | None = None,
        *,
        img_size: int = 518,
        patch_size: int = 14,
        aspect_ratio: float = 0.92,
        remove_sky: bool = True,
        max_depth: float = 2000.0,
        depth_percentile: float = 98.0,
        half_pixel_depth: bool = False,
        follow_links: FollowLinks = False,
    ) -> None:
        self._index = read_index(split_file)
        place = root, split_file, segmentation_root
        self._locate = partial(locate_pair, *place, index=self._index, follow_links=follow_links)
        depths = {"max_depth": max_depth, "depth_percentile": depth_percentile}
        shape = target_shape(img_size, aspect_ratio, patch_size)
        sizes = partial(process_view, shape=shape, half_pixel_depth=half_pixel_depth)
        self._process = partial(sizes, remove_sky=remove_sky, **depths)

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # Python's fallback would go on until an IndexError, and a pair that is not there is a PairError.
        return (self[i] for i in range(len(self)))

    def __getitem__(self, pair_index: int) -> dict[str, Any]:
        pair = self._locate(pair_index)
        views = [self._process(read_view(files)) for files in pair.views]
        images = np.stack([view.image.transpose(2, 0, 1) for view in views])
        return {
            "images": torch.from_numpy(images).float() / 255,
            "depths": _stack([view.depth for view in views]),
            "extrinsics": _stack([view.extrinsics for view in views]),
            "intrinsics": _stack([view.intrinsics for view in views]),
            "cam_points": _stack([view.cam_points for view in views]),
            "world_points": _stack([view.world_points for view in views]),
            "point_masks": _stack([view.point_mask for view in views]),
            "seq_name": pair.seq_name,
            "ids": torch.arange(len(views)),
        }


def _stack(arrays: list[Any]) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays))


def build_loader(dataset: Dataset[Any], *, pair_index: int = 0, num_workers: int = 0) -> DataLoader[Any]:
    """A loader of exactly one batch: the sample `pair_index`, with a leading axis B = 1.

    Example:
        >>> (batch,) = build_loader(PairDataset("single_pair_data", "single_pair_data/train.npz"))  # doctest: +SKIP
        >>> batch["images"].shape, batch["seq_name"]  # doctest: +SKIP
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
