"""Several sources of views as one dataset of tensors, with augmentation in training."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from torch.utils.data import ConcatDataset, Dataset

KEYS = ("images", "depths", "extrinsics", "intrinsics", "cam_points", "world_points", "point_masks")


class ComposedDataset(Dataset[Any]):
    """Indexed by (sample, frames, aspect ratio)."""

    def __init__(self, dataset_configs: Any, common_config: Any) -> None:
        self.sources = [instantiate(entry, common=common_config) for entry in dataset_configs]
        self.all: ConcatDataset[Any] = ConcatDataset(self.sources)
        self.training, self.augs = common_config.training, common_config.augs

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, wish: tuple[int, int, float]) -> dict[str, Any]:
        index, frames, aspect = wish
        views = []
        for source in self.sources:
            if index < len(source):
                views = source.views(frames, aspect)
                break
            index -= len(source)
        sample = {key: torch.from_numpy(np.stack([view[key] for view in views])) for key in KEYS}
        if self.training and self.augs.color_jitter is not None and random.random() < self.augs.color_jitter.p:
            strength = 1 + self.augs.color_jitter.brightness * random.uniform(-1, 1)
            sample["images"] = (sample["images"] * strength).clamp(0, 1)
        return {**sample, "seq_name": "hillside", "ids": torch.arange(frames)}
