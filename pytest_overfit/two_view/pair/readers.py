"""Safe readers for the files of one view. Whatever is wrong with a file is one PairError that names it.

H, W are rows and columns; depth is z in metres, 0 = invalid; cameras have OpenCV axes.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin

from pytest_overfit.errors import PairError
from pytest_overfit.settings.problems import first_line
from pytest_overfit.two_view.pair.exr_depth import MAX_PIXELS, read_exr
from pytest_overfit.two_view.pair.npz import read_npz
from pytest_overfit.two_view.pair.pair_files import ByteArray, Camera, DepthArray, FloatArray, RawView, ViewFiles
from pytest_overfit.untrusted.files import read_regular

MAX_IMAGE_BYTES = 256 * 2**20
_MAX_CAMERA_BYTES = 2**20
_MAX_JPEG_SCANS = 64
_RIGID_TOLERANCE = 1e-3
_KINDS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
)


def read_view(files: ViewFiles) -> RawView:
    """All files of one view; image, depth and mask must be of one size, with the principal point inside.

    Example:
        >>> view = read_view(locate_pair("cropped", "cropped/train.npz", "cropped_seg", 0).views[0])  # doctest: +SKIP
        >>> view.image.shape, view.depth.shape  # doctest: +SKIP
        ((480, 640, 3), (480, 640))

    Raises:
        PairError: one of the files is missing, damaged, too large or disagrees with the image.
    """
    image, depth, camera = read_image(files.image), read_depth(files.depth), read_camera(files.camera)
    labels = None if files.mask is None else read_labels(files.mask)
    height, width = image.shape[:2]
    for array, path in ((depth, files.depth), (labels, files.mask)):
        if array is not None and array.shape != (height, width):
            found = f"{array.shape[1]} x {array.shape[0]} pixels"
            raise PairError(found, where=path, allowed=f"{width} x {height} as {files.image.name}")
    _expect_inside(camera, width, height, files.camera)
    return RawView(files, image, depth, camera, labels)


def read_image(path: Path | str) -> ByteArray:
    """An RGB image (H, W, 3) uint8 out of a JPEG or PNG, at most 64 megapixels; EXIF rotation is not applied,
    because depth and camera belong to the pixels as they are stored.

    Raises:
        PairError: missing, damaged, truncated, too large, or neither JPEG nor PNG.
    """
    return _decode(Path(path), modes=("RGB", "L", "CMYK"), convert="RGB")


def read_labels(path: Path | str) -> ByteArray:
    """ADE20K-150 labels (H, W) uint8 counted from 0 (sky = 2), from a grey PNG or one with three equal channels.

    Raises:
        PairError: as `read_image`, or the three channels differ.
    """
    where = Path(path)
    pixels = _decode(where, modes=("L", "RGB"), convert=None)
    if pixels.ndim == 2:
        return pixels
    differ = np.argwhere((pixels != pixels[..., :1]).any(axis=-1))
    if len(differ):
        v, u = differ[0]
        raise PairError(
            f"pixel ({u}, {v}) is {tuple(pixels[v, u].tolist())}", where=where, allowed="grey, or three equal channels"
        )
    return np.ascontiguousarray(pixels[..., 0])


def read_depth(path: Path | str) -> DepthArray:
    """Depth (H, W) float32, z in metres, 0 = invalid, from the channel "Y" (else the first) of an EXR file.

    Raises:
        PairError: missing, damaged, over 64 megapixels, or a value is NaN, infinite or negative.
    """
    where = Path(path)
    depth = read_exr(where)
    for kind, wrong in (("NaN", np.isnan(depth)), ("infinite", np.isinf(depth)), ("negative", depth < 0)):
        count = int(wrong.sum())
        if count:
            v, u = np.argwhere(wrong)[0]
            found = f"{count} of {depth.size} depths are {kind}, the first at column {u}, row {v}"
            raise PairError(found, where=where, allowed="finite metres, 0 = invalid")
    return depth


def read_camera(path: Path | str) -> Camera:
    """Intrinsics (3, 3) in pixels and cam2world (4, 4), float64, from a .npz file without pickles.

    Raises:
        PairError: missing, damaged, wrong shapes, NaN, not a pinhole matrix, or not a rigid pose.
    """
    where = Path(path)
    arrays = read_npz(where, ("intrinsics", "cam2world"), max_bytes=_MAX_CAMERA_BYTES, max_file=_MAX_CAMERA_BYTES)
    matrices: list[FloatArray] = []
    for key, size in (("intrinsics", 3), ("cam2world", 4)):
        array = arrays[key]
        if array.shape != (size, size) or array.dtype.kind not in "iuf":
            raise PairError(
                f"{key} is {array.shape} of {array.dtype!s:.80}", where=where, allowed=f"({size}, {size}) numbers"
            )
        if not np.isfinite(array).all():
            raise PairError(f"{key} holds NaN or infinity", where=where, allowed="finite numbers")
        matrices.append(array.astype(np.float64))
    intrinsics, cam2world = matrices
    _check_intrinsics(intrinsics, where)
    _check_pose(cam2world, where)
    return Camera(intrinsics, cam2world)


def _check_intrinsics(k: FloatArray, where: Path) -> None:
    fx, fy = k[0, 0], k[1, 1]
    if not (fx > 0 and fy > 0):
        raise PairError(f"focal lengths fx {fx:.6g}, fy {fy:.6g}", where=where, allowed="positive pixels")
    if max(abs(k[0, 1]), abs(k[1, 0])) > 1e-6 * max(fx, fy) or np.abs(k[2] - [0.0, 0.0, 1.0]).max() > 1e-6:
        raise PairError(f"intrinsics {k.tolist()}", where=where, allowed="[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")


def _check_pose(pose: FloatArray, where: Path) -> None:
    if np.abs(pose[3] - [0.0, 0.0, 0.0, 1.0]).max() > 1e-6:
        raise PairError(f"the last row of cam2world is {pose[3].tolist()}", where=where, allowed="[0, 0, 0, 1]")
    if np.abs(pose).max() > 1e9:
        raise PairError(f"cam2world reaches {np.abs(pose).max():.3g}", where=where, allowed="metres below 1e9")
    rotation = pose[:3, :3]
    error = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    if error > _RIGID_TOLERANCE:
        found = f"cam2world is not rigid: R^T R is off the identity by {error:.3g}"
        raise PairError(found, where=where, allowed=f"a rotation, to {_RIGID_TOLERANCE:g} (no scale, no shear)")
    if np.linalg.det(rotation) < 0:
        raise PairError("cam2world mirrors: its determinant is -1", where=where, allowed="a rotation, determinant +1")


def _expect_inside(camera: Camera, width: int, height: int, where: Path) -> None:
    """The principal point lies inside of the image. One factor off its middle on both axes: another image's size."""
    cx, cy = camera.intrinsics[0, 2], camera.intrinsics[1, 2]
    if 0 < cx < width - 1 and 0 < cy < height - 1:
        return
    across, along = 2 * cx / (width - 1), 2 * cy / (height - 1)
    point = f"principal point ({cx:.6g}, {cy:.6g}) in {width} x {height} pixels"
    allowed = f"one between (0, 0) and ({width - 1}, {height - 1})"
    if min(across, along) > 1.5 and abs(across - along) <= 0.05 * max(across, along):
        found = f"intrinsics of an image {across:.2g} times as large: {point}"
        raise PairError(found, where=where, allowed=allowed, hint=f"intrinsics[:2] * {1 / across:.3g} in {where.name}")
    raise PairError(point, where=where, allowed=allowed)


def _decode(path: Path, *, modes: tuple[str, ...], convert: str | None) -> ByteArray:
    """Pixels of a JPEG or PNG; the size is checked in the header before anything is decoded."""
    try:
        data = read_regular(path, most=MAX_IMAGE_BYTES, error=PairError)
        kinds = [kind for magic, kind in _KINDS if data.startswith(magic)]
        if not kinds:
            raise PairError(f"starts with {data[:8]!r}", where=path, allowed="a JPEG or PNG file")
        # In JPEG data a coded 0xFF is stuffed, so the scans can be counted: thousands of progressive ones take hours.
        if data.startswith(_KINDS[0][0]) and data.count(b"\xff\xda") > _MAX_JPEG_SCANS:
            raise PairError(
                f"{data.count(bytes([255, 218]))} JPEG scans", where=path, allowed=f"at most {_MAX_JPEG_SCANS}"
            )
        # The plugin classes are called by name, not through Image.open: the content must be what it says, and the
        # bound is ours instead of Pillow's global one (which only warns).
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with kinds[0](io.BytesIO(data)) as image:
                _check_size(image, path, modes)
                image.load()
                chosen: Image.Image = image.convert(convert) if convert and image.mode != convert else image
                return np.array(chosen, dtype=np.uint8)
    except PairError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, IndexError ...
        found = f"cannot be decoded ({first_line(error)[:200]})"
        raise PairError(found, where=path, allowed="an intact JPEG or PNG file") from error


def _check_size(image: Image.Image, path: Path, modes: tuple[str, ...]) -> None:
    width, height = image.size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise PairError(f"{width} x {height} pixels", where=path, allowed=f"at most {MAX_PIXELS} pixels")
    if image.mode not in modes:
        raise PairError(f"colour mode {image.mode}", where=path, allowed=" or ".join(modes))
