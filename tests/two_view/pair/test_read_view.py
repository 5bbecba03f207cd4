"""Cameras and whole views: read, or refused with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_overfit.errors import PairError
from pytest_overfit.text.translations import translated
from pytest_overfit.two_view.pair.pair_files import PairFiles
from pytest_overfit.two_view.pair.readers import read_camera, read_view
from tests.shared_data import shared_data
from tests.two_view.pair.reader_files import DEPTH, GREY, error_of
from tests.two_view.pair.support import image_bytes, write_camera, write_depth

TURN = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


def test_camera_is_read_as_doubles(tmp_path: Path) -> None:
    """Matrices of any number type come back as float64; world2cam is the inverse of cam2world."""
    path = write_camera(tmp_path / "a.npz", np.array([[9, 0, 4], [0, 9, 3], [0, 0, 1]]), TURN.astype(np.float32))
    camera = read_camera(path)
    assert camera.intrinsics.dtype == camera.cam2world.dtype == np.float64
    np.testing.assert_allclose(camera.world2cam @ camera.cam2world, np.eye(4), atol=1e-12)


def _k(**entries: float) -> Any:
    k = np.array([[100.0, 0, 20], [0, 100.0, 15], [0, 0, 1]])
    for place, value in entries.items():
        k[int(place[1]), int(place[2])] = value
    return k


@pytest.mark.parametrize(
    ("intrinsics", "cam2world", "message"),
    [
        (np.eye(4), None, "intrinsics is (4, 4) of float64\n  allowed: (3, 3) numbers"),
        (None, np.eye(4)[:3], "cam2world is (3, 4) of float64\n  allowed: (4, 4) numbers"),
        (np.full((3, 3), "a"), None, "intrinsics is (3, 3) of <U1\n  allowed: (3, 3) numbers"),
        (_k(_02=np.nan), None, "intrinsics holds NaN or infinity\n  allowed: finite numbers"),
        (None, np.full((4, 4), np.inf), "cam2world holds NaN or infinity\n  allowed: finite numbers"),
        (_k(_00=0.0), None, "focal lengths fx 0, fy 100\n  allowed: positive pixels"),
        (_k(_11=-100.0), None, "focal lengths fx 100, fy -100\n  allowed: positive pixels"),
        (
            _k(_01=3.0),
            None,
            "intrinsics [[100.0, 3.0, 20.0], [0.0, 100.0, 15.0], [0.0, 0.0, 1.0]]\n"
            "  allowed: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]",
        ),
        (
            None,
            np.diag([1.0, 1, 1, 2]),
            "the last row of cam2world is [0.0, 0.0, 0.0, 2.0]\n  allowed: [0, 0, 0, 1]",
        ),
        (
            None,
            np.diag([1.01, 1.01, 1.01, 1]),
            "cam2world is not rigid: R^T R is off the identity by 0.0201\n"
            "  allowed: a rotation, to 0.001 (no scale, no shear)",
        ),
        (
            None,
            np.diag([1.0, 1, -1, 1]),
            "cam2world mirrors: its determinant is -1\n  allowed: a rotation, determinant +1",
        ),
        (None, np.zeros((4, 4)), "the last row of cam2world is [0.0, 0.0, 0.0, 0.0]\n  allowed: [0, 0, 0, 1]"),
    ],
)
def test_impossible_cameras(intrinsics: Any, cam2world: Any, message: str, tmp_path: Path) -> None:
    """Each way in which a camera can be impossible is one error with the value found."""
    assert error_of(read_camera, write_camera(tmp_path / "a.npz", intrinsics, cam2world)) == message


def test_camera_without_its_keys(tmp_path: Path) -> None:
    """A camera file of other keys says which one is missing and which there are."""
    path = tmp_path / "a.npz"
    np.savez(path, intrinsics=np.eye(3), extrinsics=np.eye(4))
    assert error_of(read_camera, path) == (
        "has no key 'cam2world', only ['extrinsics', 'intrinsics']\n  allowed: intrinsics, cam2world"
    )


def test_camera_file_of_megabytes(tmp_path: Path) -> None:
    """A camera takes a few hundred bytes: a file of megabytes is refused unopened."""
    path = write_camera(tmp_path / "a.npz", more=np.zeros(200_000))
    assert error_of(read_camera, path).endswith(" bytes\n  allowed: at most 1048576 bytes")


# --- views


def test_view_of_the_rendered_pair(town_pair: PairFiles) -> None:
    """All files of a view come back together, at one size."""
    view = read_view(town_pair.views[1])
    assert view.image.shape == (120, 160, 3)
    assert view.depth.shape == (120, 160)
    assert view.labels is not None
    assert set(np.unique(view.labels)) <= {0, 1, 2, 4, 6}
    assert read_view(replace(town_pair.views[1], mask=None)).labels is None


def test_sizes_that_disagree(town_pair: PairFiles) -> None:
    """Depth or mask of another size than the image names the file and both sizes."""
    files = town_pair.views[0]
    write_depth(files.depth, DEPTH)
    with pytest.raises(PairError) as error:
        read_view(files)
    assert str(error.value) == f"{files.depth}: 40 x 30 pixels\n  allowed: 160 x 120 as aerial.jpeg.jpg"
    other = town_pair.views[1]
    assert other.mask is not None
    other.mask.write_bytes(image_bytes(GREY, "PNG"))
    with pytest.raises(PairError) as error:
        read_view(other)
    assert str(error.value) == f"{other.mask}: 40 x 30 pixels\n  allowed: 160 x 120 as ground.jpeg.jpg"


def test_principal_point_outside(town_pair: PairFiles) -> None:
    """A principal point beside the image (the camera of another resolution, say) is refused."""
    files = town_pair.views[0]
    write_camera(files.camera, _k(_02=320.0))
    with pytest.raises(PairError) as error:
        read_view(files)
    assert str(error.value) == (
        f"{files.camera}: principal point (320, 15) in 160 x 120 pixels\n  allowed: one between (0, 0) and (159, 119)"
    )


def test_intrinsics_of_an_image_twice_as_large(town_pair: PairFiles) -> None:
    files = town_pair.views[0]
    write_camera(files.camera, _k(_02=159.0, _12=119.0))
    with pytest.raises(PairError) as error:
        read_view(files)
    first, _, last = str(error.value).splitlines()
    assert "intrinsics of an image 2 times as large: principal point (159, 119) in 160 x 120 pixels" in first
    assert last == f"  next: intrinsics[:2] * 0.5 in {files.camera.name}"
    assert "2 倍大" in translated(error.value.found, "zh")


def test_real_views() -> None:
    """The real frames read with the published sizes, ranges and labels."""
    from pytest_overfit.two_view.pair.index import locate_pair

    root, seg = shared_data("real_rgbd", "cropped"), shared_data("real_rgbd", "cropped_seg")
    view = read_view(locate_pair(root, root / "train.npz", seg, 0).views[0])
    assert view.image.shape == (480, 640, 3)
    assert (view.depth.min(), view.depth.max()) == (0, np.float32(3.493))
    assert view.camera.intrinsics.tolist() == [[585, 0, 320], [0, 585, 240], [0, 0, 1]]
    assert view.labels is not None
    assert np.unique(view.labels).tolist() == [0, 3]
