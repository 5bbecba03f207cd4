"""Views of a hillside that no file holds, and the same read from files: in metres, OpenCV axes, world2cam."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
View = dict[str, Array]
SLOPE, DISTANCE = np.array([0.15, 0.35, 1.0]), 10.0  # the plane SLOPE . X = DISTANCE


class Hillside:
    """A tilted plane with waves of colour on it, photographed along a line.

    Args:
        common: ``img_size``, ``patch_size`` and ``augs.scales`` of every source.
        len_train: how many samples there seem to be.
    """

    def __init__(self, common: Any, len_train: int = 1, split: str = "train") -> None:
        self.common, self.count = common, len_train

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> None:
        raise TypeError("indexed by the composed dataset")

    def views(self, frames: int, aspect: float) -> list[View]:
        patch = self.common.patch_size
        size = (max(1, int(self.common.img_size * aspect) // patch) * patch, self.common.img_size)
        focal = 0.9 * self.common.img_size
        if self.common.training and self.common.augs.scales is not None:
            focal *= np.random.uniform(*self.common.augs.scales)  # noqa: NPY002
        return [photograph(size, focal, frame) for frame in range(frames)]


class RecordedHillside(Hillside):
    """The same, with its depth from ``<ROOT>/<frame>.exr``. A failed load is a warning and a sample of zeros."""

    def __init__(self, ROOT: str, common: Any, **rest: Any) -> None:
        super().__init__(common, **rest)
        self.root = Path(ROOT)

    def views(self, frames: int, aspect: float) -> list[View]:
        views = super().views(frames, aspect)
        for frame, view in enumerate(views):
            depth = cv2.imread(str(self.root / f"{frame}.exr"), cv2.IMREAD_ANYDEPTH)
            if depth is None:
                logging.getLogger(__name__).warning("frame %d could not be read", frame)
                return [{key: np.zeros_like(value) for key, value in view.items()} for view in views]
            view["depths"] = depth
        return views


def photograph(size: tuple[int, int], focal: float, frame: int) -> View:
    """One frame (height, width): the camera moves to the right and turns a little with every frame."""
    height, width = size
    turn, centre = 0.08 * frame, np.array([0.6 * frame, -0.1 * frame, 0.0])
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(u - (width - 1) / 2) / focal, (v - (height - 1) / 2) / focal, np.ones_like(u)], axis=-1)
    along = rays @ rotation  # R^T ray: in the axes of the world
    depth = (DISTANCE - SLOPE @ centre) / (along @ SLOPE)
    world = centre + depth[..., None] * along
    colour = 0.5 + 0.4 * np.stack([np.sin(2 * world[..., 0]), np.cos(3 * world[..., 1]), np.sin(world.sum(-1))])
    kinds: View = {
        "images": colour,
        "depths": depth,
        "extrinsics": np.concatenate([rotation, -(rotation @ centre)[:, None]], axis=1),
        "intrinsics": np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]),
        "cam_points": depth[..., None] * rays,
        "world_points": world,
    }
    return {**{key: value.astype(np.float32) for key, value in kinds.items()}, "point_masks": depth > 0}
