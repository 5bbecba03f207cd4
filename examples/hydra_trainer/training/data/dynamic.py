"""A loader per epoch, each batch with a number of frames and an aspect ratio of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from hydra.utils import instantiate
from torch.utils.data import DataLoader, DistributedSampler, Sampler

Wish = tuple[int, int, float]  # sample, frames, height over width


class DynamicLoader:
    """Builds the dataset of a split; ``seed`` may be set before ``get_loader(epoch)``."""

    def __init__(
        self, dataset: Any, common_config: Any, num_workers: int, max_img_per_gpu: int, shuffle: bool = True
    ) -> None:
        self.dataset = instantiate(dataset, common_config=common_config, _recursive_=False)
        self.num_workers, self.seed = num_workers, 0
        self.order = DistributedSampler(self.dataset, shuffle=shuffle)  # asks the process group for its size
        self.common, self.images = common_config, max_img_per_gpu

    def get_loader(self, epoch: int) -> DataLoader[Any]:
        self.order.set_epoch(epoch)
        wishes = Wishes(self.order, self.common, self.images, random.Random(self.seed + epoch))
        return DataLoader(self.dataset, batch_sampler=wishes, num_workers=self.num_workers)


class Wishes(Sampler[Any]):
    """Batches of (sample, frames, aspect ratio), as many as fit into a number of images."""

    def __init__(self, order: DistributedSampler[Any], common: Any, images: int, chance: random.Random) -> None:
        self.order, self.common, self.images, self.chance = order, common, images, chance

    def __iter__(self) -> Iterator[list[Wish]]:
        waiting = list(self.order)
        while waiting:
            frames = int(np.random.randint(self.common.img_nums[0], self.common.img_nums[1] + 1))  # noqa: NPY002
            aspect = round(self.chance.uniform(*self.common.augs.aspects), 2)
            if self.common.fix_img_num > 0:
                frames, aspect = self.common.fix_img_num, self.common.fix_aspect_ratio
            count = max(1, self.images // frames)
            taken, waiting = waiting[:count], waiting[count:]
            yield [(index, frames, aspect) for index in taken]

    def __len__(self) -> int:
        return 1_000_000  # nobody knows before the frames are drawn
