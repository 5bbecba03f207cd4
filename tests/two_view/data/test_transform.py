"""From a view on disk to arrays: the original's numbers, its nearest neighbour, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit.errors import ConfigError, PairError
from pytest_overfit.two_view.data.transform import (
    ViewArrays,
    nearest_indices,
    process_view,
    target_shape,
    unproject,
)
from pytest_overfit.two_view.pair.index import locate_pair
from pytest_overfit.two_view.pair.pair_files import Camera, RawView, ViewFiles, clean_depth
from pytest_overfit.two_view.pair.readers import read_view
from tests.shared_data import GOLDEN, golden

POSE = np.eye(4)
POSE[:3, 3] = [1.0, 2.0, 3.0]


def _view(
    height: int = 60, width: int = 80, *, pp: tuple[float, float] | None = None, labels: np.ndarray | None = None
) -> RawView:
    """A view whose depth names the pixel it came from: 1 + row + column / 1000 metres."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)
    cx, cy = pp or ((width - 1) / 2, (height - 1) / 2)
    intrinsics = np.array([[70.0, 0.0, cx], [0.0, 70.0, cy], [0.0, 0.0, 1.0]])
    here = Path("scene")
    files = ViewFiles("scene", "a", here / "a.jpg", here / "a.exr", here / "a.npz", None)
    return RawView(files, image, (1 + rows + columns / 1000).astype(np.float32), Camera(intrinsics, POSE), labels)


@pytest.mark.parametrize("frame", [0, 1])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_arrays(name: str, frame: int) -> None:
    """Every array of both frames is the original's, depth and masks exactly."""
    reference = golden(name)
    pair = locate_pair(reference.root, reference.split_file, reference.segmentation_root, reference.pair_index)
    shape = target_shape(reference.img_size, reference.aspect_ratio)
    seen = process_view(read_view(pair.views[frame]), shape=shape)
    expected = {key: value[0, frame] for key, value in reference.arrays.items() if value.ndim and value.shape[0] == 1}
    np.testing.assert_array_equal(seen.depth, expected["depths"])
    np.testing.assert_array_equal(seen.point_mask, expected["point_masks"])
    assert seen.depth.dtype == expected["depths"].dtype
    np.testing.assert_array_equal(seen.extrinsics, expected["extrinsics"])
    np.testing.assert_allclose(seen.intrinsics, expected["intrinsics"], rtol=0, atol=1e-4)
    colours = np.abs(seen.image.transpose(2, 0, 1).astype(int) - expected["images"])
    assert colours.max() <= 1
    np.testing.assert_allclose(seen.world_points[::7, ::7], expected["world_points_every7"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("img_size", "aspect", "patch", "shape"),
    [(518, 0.92, 14, (476, 518)), (112, 0.93, 14, (98, 112)), (252, 0.75, 14, (182, 252)), (64, 1.0, 16, (64, 64))],
)
def test_target_shape(img_size: int, aspect: float, patch: int, shape: tuple[int, int]) -> None:
    """The height is the aspect ratio's share of the width, cut down to whole patches."""
    assert target_shape(img_size, aspect, patch) == shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((500, 0.92, 14), "img_size 500\n  allowed: a multiple of the patch size 14"),
        ((0, 0.92, 14), "img_size 0\n"),
        (
            (140, 0.05, 14),
            "img_size 140 x aspect_ratio 0.05 is less than one patch of 14 pixels\n  allowed: aspect_ratio",
        ),
    ],
)
def test_shapes_that_do_not_fit(arguments: tuple[int, float, int], message: str) -> None:
    """A size that is not made of whole patches is a configuration error that says what is."""
    with pytest.raises(ConfigError) as error:
        target_shape(*arguments)
    assert str(error.value).startswith(message)


@given(st.integers(1, 1200), st.integers(1, 1200))
@settings(deadline=None)
def test_nearest_is_that_of_opencv(source: int, target: int) -> None:
    """The index of every output pixel is the one that cv2.INTER_NEAREST takes, at any ratio."""
    row = np.arange(source, dtype=np.float32)[None]
    expected = cv2.resize(row, (target, 1), interpolation=cv2.INTER_NEAREST)[0]
    np.testing.assert_array_equal(nearest_indices(source, target), expected)


@given(st.integers(1, 300), st.integers(1, 300))
@settings(deadline=None)
def test_half_pixel_takes_the_pixel_below_the_centre(source: int, target: int) -> None:
    """With `half_pixel` the centre of the output pixel, in source pixels, lies in the pixel that is taken."""
    taken = nearest_indices(source, target, half_pixel=True)
    centres = (np.arange(target) + 0.5) * source / target
    assert ((taken <= centres + 1e-9) & (centres <= taken + 1 + 1e-9)).all()


def _depth_error(*, half_pixel_depth: bool) -> float:
    """How far, in source pixels, the depth of an output pixel lies from where its intrinsics place it."""
    view = _view(300, 400)
    arrays = process_view(view, shape=(98, 112), depth_percentile=100, half_pixel_depth=half_pixel_depth)
    row_of_depth = np.floor(arrays.depth[:, 56]) - 1
    ray = (np.arange(98) - arrays.intrinsics[1, 2]) / arrays.intrinsics[1, 1]
    row_of_ray = ray * 70 + 149.5
    return float(np.mean(row_of_depth - row_of_ray))


def test_half_pixel_depth_lines_up() -> None:
    """The original's depth lies about half an output pixel too high up; `half_pixel_depth` puts it right."""
    pixel = 298 / 102  # source pixels per output pixel: the centre crop and the resize to 98 + 4
    assert _depth_error(half_pixel_depth=False) == pytest.approx(-pixel / 2, abs=0.6)
    assert _depth_error(half_pixel_depth=True) == pytest.approx(0, abs=0.2)


def test_sky_goes_first() -> None:
    """Depth of label 2 is removed before the percentiles are taken, other labels stay, and only on request."""
    labels = np.ones((60, 80), np.uint8)
    labels[:20] = 2
    removed = process_view(_view(labels=labels), shape=(28, 42), depth_percentile=100)
    kept = process_view(_view(labels=labels), shape=(28, 42), depth_percentile=100, remove_sky=False)
    assert (removed.depth == 0).any()
    np.testing.assert_array_equal(removed.depth[removed.depth > 0], kept.depth[removed.depth > 0])
    assert (kept.depth > 0).all()
    assert removed.depth[removed.depth > 0].min() >= 21


def test_far_depth_goes_before_the_percentiles() -> None:
    """What lies beyond `max_depth` does not count among the depths that the percentiles are taken of."""
    depth = np.arange(1, 301, dtype=np.float32).reshape(3, 100)
    cleaned = clean_depth(depth, None, max_depth=200, depth_percentile=98)
    valid = np.arange(1, 201)
    low, high = np.percentile(valid, [2, 98])
    np.testing.assert_array_equal(cleaned[cleaned > 0], valid[(valid >= low) & (valid <= high)])
    assert depth[2, 99] == 300, "the depth of the view must not be written to"


@pytest.mark.parametrize(("valid", "cut"), [(100, False), (101, True)])
def test_percentiles_need_more_than_100_depths(valid: int, cut: bool) -> None:
    """With 100 valid depths nothing is cut off, with 101 both ends are."""
    depth = np.zeros(200, np.float32)
    depth[:valid] = np.arange(1, valid + 1)
    cleaned = clean_depth(depth.reshape(10, 20), None)
    assert bool((cleaned > 0).sum() < valid) is cut


@given(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4), st.integers(2, 6), st.integers(2, 6))
@settings(deadline=None)
def test_points_project_back_to_their_pixels(dx: float, dy: float, rows: int, columns: int) -> None:
    """Whatever the principal point and the shape, world points fall back on the pixels they came from."""
    view = _view(pp=(39.5 + 40 * dx, 29.5 + 30 * dy))
    arrays = process_view(view, shape=(14 * rows, 14 * columns), depth_percentile=100)
    cam = arrays.world_points @ arrays.extrinsics[:, :3].T + arrays.extrinsics[:, 3]
    pixels = cam @ arrays.intrinsics.T
    v, u = np.mgrid[: 14 * rows, : 14 * columns]
    mask = arrays.point_mask
    np.testing.assert_allclose(cam[mask], arrays.cam_points[mask], atol=1e-4)
    np.testing.assert_allclose(pixels[mask][:, :2] / pixels[mask][:, 2:], np.stack([u, v], -1)[mask], atol=2e-3)


def test_invalid_pixels_lie_at_the_camera() -> None:
    """Without depth the camera point is 0 and the world point the centre of the camera."""
    eye = np.eye(3, dtype=np.float32)
    extrinsics = np.array([[1, 0, 0, -1], [0, 1, 0, -2], [0, 0, 1, -3]], np.float32)
    cam, world = unproject(np.zeros((2, 3), np.float32), eye, extrinsics)
    assert (cam == 0).all()
    assert (world == [1, 2, 3]).all()
    assert cam.dtype == world.dtype == np.float32


def test_short_crop_is_padded_at_bottom_and_right() -> None:
    """With a principal point at the very edge the crop runs out of image: zeros follow, and the mask knows."""
    arrays = process_view(_view(pp=(77.9, 57.9)), shape=(28, 28))
    assert arrays.image.shape == (28, 28, 3)
    assert arrays.depth.shape == (28, 28)
    assert not arrays.point_mask[-1].any()
    assert not arrays.point_mask[:, -1].any()
    assert (arrays.image[-1] == 0).all()
    assert arrays.point_mask[0, 0]


def test_types_of_the_arrays() -> None:
    """Colours are uint8, the mask bool and everything else float32, at the target shape."""
    arrays = process_view(_view(), shape=(28, 42))
    seen = {
        name: (getattr(arrays, name).shape, getattr(arrays, name).dtype.name) for name in ViewArrays.__annotations__
    }
    assert seen == {
        "image": ((28, 42, 3), "uint8"),
        "depth": ((28, 42), "float32"),
        "extrinsics": ((3, 4), "float32"),
        "intrinsics": ((3, 3), "float32"),
        "cam_points": ((28, 42, 3), "float32"),
        "world_points": ((28, 42, 3), "float32"),
        "point_mask": ((28, 42), "bool"),
    }


def test_sizes_that_differ() -> None:
    """A mask of another size than the image is an error that gives both sizes."""
    with pytest.raises(PairError, match=r"a\.jpg: sizes differ: image \(60, 80\), depth \(60, 80\), labels \(30, 40\)"):
        process_view(_view(labels=np.zeros((30, 40), np.uint8)), shape=(28, 42))


@pytest.mark.parametrize("pp", [(-5.0, 30.0), (40.0, 60.0), (0.5, 30.0)])
def test_principal_point_outside(pp: tuple[float, float]) -> None:
    """A principal point with no window around it is an error, not an empty image."""
    with pytest.raises(PairError, match="outside the image"):
        process_view(_view(pp=pp), shape=(28, 42))


def test_no_torch() -> None:
    """The transform works without torch."""
    code = "import sys, pytest_overfit.two_view.data.transform; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    meta = code.replace("pytest_overfit.two_view.data.transform", "pytest_overfit.run.batch")
    assert subprocess.run([sys.executable, "-c", meta], check=False).returncode == 1
