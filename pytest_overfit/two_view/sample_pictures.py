"""The frames of a run as arrays for whoever draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pytest_overfit.two_view.metrics import depth_of, pose_of
from pytest_overfit.two_view.pair.pair_files import Camera
from pytest_overfit.two_view.pictures.frame_picture import FramePicture
from pytest_overfit.two_view.reference.pose import decode_pose


@dataclass(frozen=True)
class FramePictures:
    """The frames of one sample, as an observer is given them. Drawing imports the drawing library."""

    frames: tuple[FramePicture, ...]

    def panels(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Name -> (H, W, 3) uint8 RGB."""
        from pytest_overfit.two_view.pictures.frames import picture_panels

        return picture_panels(self.frames)

    def write(self, folder: Path) -> tuple[str, ...]:
        """Writes every panel as a PNG file, the cameras as SVG; their names.

        Raises:
            OSError: the folder cannot be written.
        """
        from pytest_overfit.two_view.pictures.frames import write_pictures

        return write_pictures(folder, self.frames)


def take_pictures(predictions: Any, batch: Mapping[str, Any]) -> FramePictures:
    """The frames of the first sample, with what the model says of them."""
    given = predictions if isinstance(predictions, Mapping) else {}
    depth, confidence, pose = depth_of(given), given.get("depth_conf"), pose_of(given)
    frames = (
        FramePicture(
            frame=frame,
            image=(image.clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy(),
            truth=batch["depths"][0, frame].float().cpu().numpy(),
            valid=batch["point_masks"][0, frame].cpu().numpy(),
            predicted=None if depth is None else depth[0, frame].detach().float().cpu().numpy(),
            confidence=None if confidence is None else confidence[0, frame].detach().float().cpu().numpy(),
            camera=_camera(batch["extrinsics"][0, frame], batch["intrinsics"][0, frame]),
            predicted_camera=None if pose is None else _predicted_camera(pose[0, frame], image.shape[-2:]),
        )
        for frame, image in enumerate(batch["images"][0])
    )
    return FramePictures(tuple(frames))


def _predicted_camera(pose: Tensor, size: tuple[int, int]) -> Camera | None:
    return _camera(*decode_pose(pose.detach().double(), size))


def _camera(extrinsics: Tensor, intrinsics: Tensor) -> Camera | None:
    """None where a number is not finite, as in a camera that was never learnt."""
    world2cam = np.eye(4)
    world2cam[:3] = extrinsics.detach().double().cpu().numpy()
    k = intrinsics.detach().double().cpu().numpy()
    if not (np.isfinite(world2cam).all() and np.isfinite(k).all()):
        return None
    cam2world = np.eye(4)
    cam2world[:3, :3] = world2cam[:3, :3].T
    cam2world[:3, 3] = -world2cam[:3, :3].T @ world2cam[:3, 3]
    return Camera(k, cam2world)
