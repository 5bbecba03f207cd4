"""One view as it lies on disk, to the arrays a two-view model is trained on. numpy and Pillow only.

Shape legend: h w of the source, H W of the target, rows first. Pixel centres lie at integers.
Axes: OpenCV (x right, y down, z forward); extrinsics are world2cam. Units: metres and pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_overfit.errors import ConfigError, PairError
from pytest_overfit.two_view.pair.pair_files import BoolArray, ByteArray, DepthArray, RawView, clean_depth

Float32Array: TypeAlias = npt.NDArray[np.float32]

MIN_DEPTH = 1e-8  # metres: anything nearer is "no measurement"
MARGIN = 4  # pixels that the resize leaves over for the last crop


@dataclass(frozen=True)
class ViewArrays:
    """One view at the target shape.

    `image` (H, W, 3) uint8 RGB; `depth` (H, W) metres, 0 = invalid; `extrinsics` (3, 4) world2cam; `intrinsics` (3, 3)
    pixels; `cam_points`, `world_points` (H, W, 3) metres, (0, 0, 0) and the camera centre where depth is invalid;
    `point_mask` (H, W) bool. All floats are float32.
    """

    image: ByteArray
    depth: DepthArray
    extrinsics: Float32Array
    intrinsics: Float32Array
    cam_points: Float32Array
    world_points: Float32Array
    point_mask: BoolArray


def target_shape(img_size: int, aspect_ratio: float, patch_size: int = 14) -> tuple[int, int]:
    """Height and width that a config asks for: the width is `img_size`, the height a multiple of the patch.

    Example:
        >>> target_shape(518, 0.92)
        (476, 518)

    Args:
        img_size: width in pixels, a multiple of `patch_size`.
        aspect_ratio: height / width, rounded down to whole patches.
        patch_size: pixels.

    Raises:
        ConfigError: the width is not a whole number of patches, or the height comes to none.

    Source: the fixed aspect ratio of the public VGGT trainer, as measured in its batches.
    """
    if patch_size < 1 or img_size < patch_size or img_size % patch_size:
        raise ConfigError(f"img_size {img_size}", allowed=f"a multiple of the patch size {patch_size}")
    height = (int(img_size * aspect_ratio) // patch_size) * patch_size
    if height < patch_size:
        raise ConfigError(
            f"img_size {img_size} x aspect_ratio {aspect_ratio} is less than one patch of {patch_size} pixels",
            allowed=f"aspect_ratio of at least {ceil(1000 * patch_size / img_size) / 1000}",
        )
    return height, img_size


def process_view(
    view: RawView,
    *,
    shape: tuple[int, int],
    remove_sky: bool = True,
    max_depth: float = 2000.0,
    depth_percentile: float = 98.0,
    half_pixel_depth: bool = False,
) -> ViewArrays:
    """Clean the depth, crop around the principal point, resize, crop to `shape`, and unproject.

    Args:
        view: image (h, w, 3) uint8, depth (h, w) metres, camera, labels (h, w) or None.
        shape: (H, W) pixels.
        remove_sky: depth of label 2 (ADE20K counted from 0) becomes 0, where the view has labels.
        max_depth: metres; what is farther becomes 0.
        depth_percentile: p cuts depths above the p-th and below the (100 - p)-th percentile; 100 cuts nothing.
        half_pixel_depth: sample the depth at the centre of the output pixel. The original does not: its depth lies
            about half an output pixel up and left of the image and the intrinsics.

    Raises:
        PairError: image, depth and labels differ in size, or the principal point lies outside the image.

    Source: the data path of the public VGGT trainer without augmentation, number by number.
    """
    _check_sizes(view)
    depth = clean_depth(
        view.depth, view.labels if remove_sky else None, max_depth=max_depth, depth_percentile=depth_percentile
    )
    image, intrinsics = view.image, view.camera.intrinsics.astype(np.float32)

    image, depth, intrinsics = _centre_crop(image, depth, intrinsics, where=view.files.image)
    image, depth, intrinsics = _resize(image, depth, intrinsics, shape, half_pixel_depth=half_pixel_depth)
    image, depth, intrinsics = _strict_crop(image, depth, intrinsics, shape)

    extrinsics = np.linalg.inv(view.camera.cam2world.astype(np.float32))[:3].astype(np.float32)
    cam_points, world_points = unproject(depth, intrinsics, extrinsics)
    return ViewArrays(image, depth, extrinsics, intrinsics, cam_points, world_points, depth > MIN_DEPTH)


def nearest_indices(source: int, target: int, *, half_pixel: bool = False) -> npt.NDArray[np.int64]:
    """For each of `target` pixels the index of the one of `source` pixels that a nearest-neighbour resize takes.

    Example:
        >>> nearest_indices(4, 2).tolist(), nearest_indices(4, 2, half_pixel=True).tolist()
        ([0, 2], [1, 3])

    Args:
        source, target: number of pixels along the axis.
        half_pixel: take the source pixel that holds the centre of the target pixel; else the upper left one.

    Source: without `half_pixel`, what `cv2.INTER_NEAREST` does, its rounding included.
    """
    scale = 1.0 / (target / source)
    positions = np.arange(target) + (0.5 if half_pixel else 0.0)
    indices: npt.NDArray[np.int64] = np.floor(positions * scale).astype(np.int64)
    return indices


def unproject(
    depth: DepthArray, intrinsics: Float32Array, extrinsics: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Points in camera and in world axes.

    Example:
        >>> eye = np.eye(4, dtype=np.float32)
        >>> cam, world = unproject(np.full((1, 2), 2.0, np.float32), eye[:3, :3], eye[:3])
        >>> cam[0, 1].tolist()
        [2.0, 0.0, 2.0]

    Args:
        depth: (H, W) metres, z.
        intrinsics: (3, 3) pixels, pixel centres at integers.
        extrinsics: (3, 4) world2cam.

    Returns:
        cam_points ((u - cx) z / fx, (v - cy) z / fy, z) and world_points R^T (cam - t), both (H, W, 3) float32.
    """
    height, width = depth.shape
    K, E, z = intrinsics.astype(np.float64), extrinsics.astype(np.float64), depth.astype(np.float64)
    x = (np.arange(width)[None, :] - K[0, 2]) * z / K[0, 0]
    y = (np.arange(height)[:, None] - K[1, 2]) * z / K[1, 1]
    cam = np.stack([x, y, z], axis=-1)
    world = (cam - E[:, 3]) @ E[:, :3]  # row vectors: p @ R is R^T p
    return cam.astype(np.float32), world.astype(np.float32)


def _centre_crop(
    image: ByteArray, depth: DepthArray, intrinsics: Float32Array, *, where: object
) -> tuple[ByteArray, DepthArray, Float32Array]:
    """The largest window that the principal point is the middle of."""
    intrinsics = intrinsics.copy()
    windows = []
    for axis, size in ((1, image.shape[0]), (0, image.shape[1])):
        pp = float(intrinsics[axis, 2])
        half = floor(min(size / 2, pp, size - pp))
        if half < 1:
            raise PairError(f"principal point {pp} outside the image", where=where, allowed=f"1 .. {size - 1}")
        start = floor(pp) - half
        intrinsics[axis, 2] -= start
        windows.append(slice(start, start + 2 * half))
    return image[windows[0], windows[1]], depth[windows[0], windows[1]], intrinsics


def _resize(
    image: ByteArray, depth: DepthArray, intrinsics: Float32Array, shape: tuple[int, int], *, half_pixel_depth: bool
) -> tuple[ByteArray, DepthArray, Float32Array]:
    """Scale so that the target shape fits with a margin, one factor for both axes of the intrinsics."""
    height, width = depth.shape
    scale = max((shape[0] + MARGIN) / height, (shape[1] + MARGIN) / width)
    new_h, new_w = floor(height * scale), floor(width * scale)
    how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    image = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((new_w, new_h), how))
    rows = nearest_indices(height, new_h, half_pixel=half_pixel_depth)
    columns = nearest_indices(width, new_w, half_pixel=half_pixel_depth)
    depth = depth[rows][:, columns]

    K = intrinsics.astype(np.float64)
    K[:2, 2] += 0.5  # to pixel corners at integers, where scaling is a plain factor
    K[:2] *= max(new_h / height, new_w / width)
    K[:2, 2] -= 0.5
    return image, depth, K.astype(np.float32)


def _strict_crop(
    image: ByteArray, depth: DepthArray, intrinsics: Float32Array, shape: tuple[int, int]
) -> tuple[ByteArray, DepthArray, Float32Array]:
    """Exactly the target shape, as central around the principal point as it goes, zeros at the bottom and right."""
    intrinsics = intrinsics.copy()
    windows = []
    for axis, size in ((1, shape[0]), (0, shape[1])):
        pp = float(intrinsics[axis, 2])
        start = floor(pp) - floor(min(size / 2, pp))
        intrinsics[axis, 2] -= start
        windows.append(slice(start, start + size))
    image, depth = image[windows[0], windows[1]], depth[windows[0], windows[1]]
    short = [(0, shape[0] - depth.shape[0]), (0, shape[1] - depth.shape[1])]
    if any(after for _, after in short):
        image, depth = np.pad(image, [*short, (0, 0)]), np.pad(depth, short)
    return image, depth, intrinsics


def _check_sizes(view: RawView) -> None:
    sizes = {"image": view.image.shape[:2], "depth": view.depth.shape}
    if view.labels is not None:
        sizes["labels"] = view.labels.shape
    if len(set(sizes.values())) > 1:
        seen = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise PairError(f"sizes differ: {seen}", where=view.files.image, allowed="one size, rows first")
