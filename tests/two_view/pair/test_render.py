"""The rendered source: exact geometry, colours that belong to the surfaces, bytes that only depend on the seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.pair_files import FloatArray, RawView
from pytest_overfit.two_view.pair.readers import read_view
from pytest_overfit.two_view.pair.synthetic import render_source, render_views
from pytest_overfit.two_view.pair.town import LABEL_ROAD
from tests.two_view.pair.support import source_views

SKY = 2


@pytest.fixture(scope="module", params=[0, 5])
def views(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RawView, RawView]:
    """Aerial and ground view as they come back from disk, at 320 x 240."""
    source = render_source(tmp_path_factory.mktemp("views"), seed=request.param, width=320, height=240)
    aerial, ground = (read_view(files) for files in source_views(source))
    return aerial, ground


def _valid(view: RawView) -> FloatArray:
    assert view.labels is not None
    return np.where(view.labels == SKY, 0.0, view.depth.astype(np.float64))


def _world(view: RawView, rows: np.ndarray, columns: np.ndarray) -> FloatArray:
    k, pose = view.camera.intrinsics, view.camera.cam2world
    z = view.depth[rows, columns].astype(np.float64)
    local = np.stack([(columns - k[0, 2]) * z / k[0, 0], (rows - k[1, 2]) * z / k[1, 1], z])
    return np.asarray(pose[:3, :3] @ local + pose[:3, 3:], dtype=np.float64)


def _seen_in_other(a: RawView, b: RawView, shift: int = 0) -> tuple[float, float, float]:
    """Share of a's valid pixels on the same surface in b, median relative depth error there, median colour error.

    `shift` moves b's image by columns before the colours are compared.
    """
    rows, columns = np.nonzero(_valid(a))
    world = _world(a, rows, columns)
    local = np.linalg.inv(b.camera.cam2world)[:3] @ np.vstack([world, np.ones(world.shape[1])])
    ahead = local[2] > 0.1
    uvw = b.camera.intrinsics @ local[:, ahead]
    u, v = np.rint(uvw[0] / uvw[2]).astype(int), np.rint(uvw[1] / uvw[2]).astype(int)
    height, width = b.depth.shape
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u, v, z = u[inside], v[inside], local[2, ahead][inside]
    error = np.abs(z / np.maximum(_valid(b)[v, u], 1e-9) - 1)
    same = error < 0.03
    here = np.flatnonzero(ahead)[inside][same]
    left = a.image[rows[here], columns[here]].astype(float)
    right = np.roll(b.image, shift, axis=1)[v[same], u[same]].astype(float)
    return same.sum() / len(rows), float(np.median(error[same])), float(np.abs(left - right).mean())


def test_layout_of_files(tmp_path: Path) -> None:
    """The source has the files of the published layout, the tag keeping its own extension, and nothing else."""
    source = render_source(tmp_path, seed=12, width=64, height=48)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    tags = ("aerial.jpeg", "ground.jpeg")
    assert found == {
        *(f"cropped/0012/{tag}.{kind}" for tag in tags for kind in ("jpg", "exr", "npz")),
        *(f"cropped_seg/0012/{tag}.png" for tag in tags),
        "cropped/train.npz",
        "cropped/val.npz",
    }
    assert (source.source_root, source.source_seg_root) == (tmp_path / "cropped", tmp_path / "cropped_seg")
    assert source.source_npz == tmp_path / "cropped" / "train.npz"


def test_ground_pixels_lie_on_the_ground(views: tuple[RawView, RawView]) -> None:
    """Pixels with the label of the ground unproject to height zero, to float32: depth, K and pose are exact."""
    for view in views:
        assert view.labels is not None
        rows, columns = np.nonzero(view.labels == LABEL_ROAD)
        assert len(rows) > 5000
        assert np.abs(_world(view, rows, columns)[2]).max() < 2e-5


def test_views_see_the_same_surfaces(views: tuple[RawView, RawView]) -> None:
    """A quarter of the valid pixels of each view meets the same depth in the other, in both directions."""
    for a, b in (views, views[::-1]):
        share, depth_error, _ = _seen_in_other(a, b)
        assert share > 0.25
        assert depth_error < 0.003


def test_views_see_the_same_colours(views: tuple[RawView, RawView]) -> None:
    """Colours belong to the surfaces: they agree at the same point, and no longer one or two pixels beside it."""
    for a, b in (views, views[::-1]):
        colour = _seen_in_other(a, b)[2]
        assert colour < 6
        assert all(_seen_in_other(a, b, shift)[2] > 1.15 * colour for shift in (-2, -1, 1, 2))


def test_sky_has_bogus_depth(views: tuple[RawView, RawView]) -> None:
    """Only the ground view sees the sky; its pixels are labelled, and their depth is finite, positive and wrong."""
    aerial, ground = views
    assert aerial.labels is not None
    assert ground.labels is not None
    sky = ground.labels == SKY
    assert not (aerial.labels == SKY).any()
    assert 0.2 < sky.mean() < 0.6
    assert (ground.depth[sky] > 1).all()
    assert ground.depth[sky].max() > ground.depth[~sky].max()


def test_depth_range_is_moderate(views: tuple[RawView, RawView]) -> None:
    """After the outer 2 % are cut, the air sees 20 to 70 m and the ground 8 to 60 m."""
    for view, (nearest, farthest) in zip(views, ((20, 70), (8, 60)), strict=True):
        depth = _valid(view)
        low, high = np.percentile(depth[depth > 0], [2, 98])
        assert nearest < low < high < farthest


def test_cameras_are_pinholes(views: tuple[RawView, RawView]) -> None:
    """fx equals fy, the principal point is the middle of the pixel grid, and both cameras stand above the ground."""
    for view in views:
        k = view.camera.intrinsics
        assert k[0, 0] == k[1, 1]
        assert (k[0, 2], k[1, 2]) == (159.5, 119.5)
        assert view.camera.cam2world[2, 3] > 2


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    """Two renderings of one seed are equal to the byte; another seed changes every image, depth and camera."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        render_source(tmp_path / name, seed=seed, width=64, height=48)
    files = {
        name: [path.read_bytes() for path in sorted((tmp_path / name).rglob("*")) if path.is_file()] for name in "abc"
    }
    assert files["a"] == files["b"]
    assert all(one != other for one, other in zip(files["a"], files["c"], strict=True))


def test_size_and_seed_out_of_range(tmp_path: Path) -> None:
    """A size or seed out of range is one error, before anything is written."""
    with pytest.raises(PairError, match=r"^render_source: width 8, height 480\n  allowed: 32 to 4096 pixels each$"):
        render_source(tmp_path / "a", width=8)
    with pytest.raises(PairError, match=r"^render_source: seed -1\n  allowed: 0 to 999999$"):
        render_source(tmp_path / "a", seed=-1)
    assert not (tmp_path / "a").exists()


def test_views_as_arrays(tmp_path: Path) -> None:
    """`render_views` gives the arrays without touching the disk."""
    aerial, _ = render_views(7, 64, 48, tmp_path / "x", tmp_path / "y")
    assert aerial.image.shape == (48, 64, 3)
    assert aerial.depth.dtype == np.float32
    assert list(tmp_path.iterdir()) == []
