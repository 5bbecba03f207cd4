"""Names of the files of a two-view pair, and the records that the other modules of this room pass around.

Conventions: H, W are rows and columns; pixel centres lie at integers; camera axes are OpenCV's (x right, y down,
z forward); depth is z in metres and 0 means "no measurement".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
DepthArray: TypeAlias = npt.NDArray[np.float32]
ByteArray: TypeAlias = npt.NDArray[np.uint8]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]

FollowLinks: TypeAlias = bool | Sequence[Path]  # into no folder, into any, or into these and what lies below them

RENDERED_TAGS = ("aerial.jpeg", "ground.jpeg")  # of a pair that nobody has photographed
SKY_LABEL = 2  # ADE20K-150, counted from 0


@dataclass(frozen=True)
class Camera:
    """One camera: `intrinsics` (3, 3) in pixels and `cam2world` (4, 4) in metres, both float64, OpenCV axes."""

    intrinsics: FloatArray
    cam2world: FloatArray

    @property
    def world2cam(self) -> FloatArray:
        """The inverse pose (4, 4): takes a world point to camera axes."""
        return np.asarray(np.linalg.inv(self.cam2world), dtype=np.float64)


@dataclass(frozen=True)
class ViewFiles:
    """The files of one view; `mask` is None where the source has no segmentation for it, `no_mask` its right place."""

    scene: str
    tag: str
    image: Path
    depth: Path
    camera: Path
    mask: Path | None
    no_mask: Path | None = None


@dataclass(frozen=True)
class PairFiles:
    """The files of one pair, and where in its split it stands."""

    root: Path
    split_file: Path
    segmentation_root: Path | None
    pair_index: int
    seq_name: str
    views: tuple[ViewFiles, ViewFiles]


@dataclass(frozen=True)
class RawView:
    """One view as it lies on disk.

    `image` (H, W, 3) uint8 RGB; `depth` (H, W) float32, z in metres, 0 = invalid; `labels` (H, W) uint8 ADE20K-150
    counted from 0 (sky = 2), or None where there is no mask.
    """

    files: ViewFiles
    image: ByteArray
    depth: DepthArray
    camera: Camera
    labels: ByteArray | None


@dataclass(frozen=True)
class FramePicture:
    """One frame: `image` (H, W, 3) uint8 RGB; depths (H, W) normalised, 0 = invalid; `confidence` (H, W).

    `predicted` and `confidence` are None where the model does not give them, as is `predicted_camera`. Cameras are in
    normalised units, with the first true one at the origin.
    """

    frame: int
    image: ByteArray
    truth: DepthArray
    valid: BoolArray
    predicted: DepthArray | None
    confidence: DepthArray | None
    camera: Camera | None = None
    predicted_camera: Camera | None = None


def sequence_name(scene: str, pair_index: int) -> str:
    """The name of a pair in a batch: `aerial_megadepth_<scene>_<pair index>`."""
    return f"aerial_megadepth_{scene}_{pair_index}"


def view_files(root: Path, segmentation_root: Path | None, scene: str, tag: str) -> ViewFiles:
    """Where the files of one view lie; nothing is opened, and `mask` is the place where a mask would be.

    The tag keeps its own extension: `0001_083.jpeg` has the image `0001_083.jpeg.jpg` and the mask `0001_083.jpeg.png`.
    """
    folder = root / scene
    mask = None if segmentation_root is None else segmentation_root / scene / f"{tag}.png"
    return ViewFiles(
        scene, tag, folder / f"{tag}.jpg", folder / f"{tag}.exr", folder / f"{tag}.npz", mask
    )  # fmt: skip


MIN_FOR_PERCENTILE = 100  # with fewer valid depths no outliers are cut off


def clean_depth(
    depth: DepthArray, labels: ByteArray | None, *, max_depth: float = 2000.0, depth_percentile: float = 98.0
) -> DepthArray:
    """A copy of the depth with 0 at sky pixels, beyond `max_depth`, and outside the percentiles of what is left.

    Example:
        >>> clean_depth(np.array([[1.0, 3000.0, 2.0]], np.float32), np.array([[0, 0, 2]], np.uint8)).tolist()
        [[1.0, 0.0, 0.0]]

    Args:
        depth: (h, w) metres, 0 = invalid.
        labels: (h, w) ADE20K-150 counted from 0, or None.
        max_depth: metres.
        depth_percentile: 50..100; both limits come from the same depths, and only if more than 100 are valid.
    """
    depth = depth.copy()
    if labels is not None:
        depth[labels == SKY_LABEL] = 0
    depth[depth > max_depth] = 0
    valid = depth[depth > 0]
    if valid.size > MIN_FOR_PERCENTILE:
        high, low = np.percentile(valid, [depth_percentile, 100 - depth_percentile])
        depth[(depth > high) | (depth < low)] = 0
    return depth
