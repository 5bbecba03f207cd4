"""The files of a pair: found, inside of their folders, and told of where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.index import PAIR_DTYPE, locate_pair
from pytest_overfit.two_view.pair.pair_files import FollowLinks
from pytest_overfit.two_view.pair.synthetic import RenderedSource
from tests.two_view.pair.index_files import rows_of, write_arrays


@pytest.fixture
def root(shared_town: RenderedSource) -> Path:
    """The folder of the rendered scene 0001."""
    return shared_town.source_root


def _located(root: Path, path: Path, pair_index: Any = 0) -> str:
    with pytest.raises(PairError) as error:
        locate_pair(root, path, None, pair_index)
    return str(error.value).removeprefix(f"{path}: ")


def test_files_of_a_pair(shared_town: RenderedSource) -> None:
    """A pair's files carry the double extension, its name the scene and the index."""
    source = shared_town
    pair = locate_pair(source.source_root, source.source_npz, source.source_seg_root, 0)
    assert pair.seq_name == "aerial_megadepth_0001_0"
    assert [view.image.name for view in pair.views] == ["aerial.jpeg.jpg", "ground.jpeg.jpg"]
    assert pair.views[0].depth == source.source_root / "0001" / "aerial.jpeg.exr"
    assert pair.views[0].camera == source.source_root / "0001" / "aerial.jpeg.npz"
    assert pair.views[1].mask == source.source_seg_root / "0001" / "ground.jpeg.png"
    assert locate_pair(source.source_root, source.source_npz, None, 0).views[0].mask is None


def test_scene_name_of_the_image_is_right(root: Path, tmp_path: Path) -> None:
    """Where scene_id disagrees, even out of range, the image's own scene name decides."""
    path = write_arrays(
        tmp_path / "train.npz", scenes=np.array(["9999"]), pairs=np.array([(77, 0, 1, 0.5)], dtype=PAIR_DTYPE)
    )
    assert locate_pair(root, path, None, 0).views[0].scene == "0001"


@pytest.mark.parametrize(
    ("pair_index", "message"),
    [
        (1, "pair_index 1 of 1 pairs\n  allowed: 0 to 0"),
        (-1, "pair_index -1 of 1 pairs\n  allowed: 0 to 0"),
        (True, "pair_index True\n  allowed: a whole number"),
        (0.0, "pair_index 0.0\n  allowed: a whole number"),
    ],
)
def test_pair_index_out_of_range(pair_index: Any, message: str, root: Path, tmp_path: Path) -> None:
    """Only a whole number within the index is a pair."""
    assert _located(root, write_arrays(tmp_path / "train.npz"), pair_index) == message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"pairs": np.array([[0, 2, 1]])},
            "pairs[0].im1_id is 2\n  allowed: 0 to 1 (the images)",
        ),
        (
            {"pairs": np.array([[0, 0, -1]])},
            "pairs[0].im2_id is -1\n  allowed: 0 to 1 (the images)",
        ),
        (
            {"images": rows_of("aerial.jpeg", None)},
            "pairs[0].im2_id is 1, and images[1] is a hole\n  allowed: an image with a name",
        ),
        (
            {"images_scene_name": np.array(["0001", "0002"])},
            "pairs[0] joins an image of scene '0001' and one of scene '0002' (images_scene_name)\n"
            "  allowed: two images of one scene",
        ),
        (
            {"images_scene_name": np.array(["0001", ""])},
            "images_scene_name[1] is ''\n  allowed: one plain file name, without separators",
        ),
    ],
)
def test_ids_that_lead_nowhere(changed: dict[str, Any], message: str, root: Path, tmp_path: Path) -> None:
    """Ids beyond the list, holes and images of two scenes are one error with the key and the value."""
    assert _located(root, write_arrays(tmp_path / "train.npz", **changed)) == message


@pytest.mark.parametrize(
    "name", ["..", ".", "../0001/aerial.jpeg", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "x" * 300, "\ud800"]
)
@pytest.mark.parametrize("key", ["images", "images_scene_name"])
def test_names_cannot_leave_their_folder(key: str, name: str, root: Path, tmp_path: Path) -> None:
    """A scene or a tag that is not one plain file name is refused."""
    message = _located(root, write_arrays(tmp_path / "train.npz", **{key: rows_of(name, name)}))
    assert message.startswith(f"{key}[0] is {name[:80]!r}\n") or "is damaged" in message
    assert "images" in message


@pytest.mark.parametrize("name", ["0001", "0001/aerial.jpeg.exr"])
def test_links_cannot_leave_their_folder(name: str, town: RenderedSource, tmp_path: Path) -> None:
    """A link that leads out of the root is refused; one that stays inside is followed."""
    path = town.source_root / name
    away, inside = tmp_path / "away", town.source_root / "inside"
    path.rename(away)
    path.symlink_to(away)
    with pytest.raises(PairError, match=r"is a link to .*away.*\n  allowed: a file below "):
        locate_pair(town.source_root, town.source_npz, None, 0)
    path.unlink()
    away.rename(inside)
    path.symlink_to(inside)
    assert locate_pair(town.source_root, town.source_npz, None, 0).views[0].depth.is_file()


def test_linked_mask_cannot_leave_its_folder(town: RenderedSource, tmp_path: Path) -> None:
    """A mask that is a link out of the segmentation folder is refused, whether it leads to a file or not."""
    mask = town.source_seg_root / "0001" / "aerial.jpeg.png"
    mask.unlink()
    mask.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PairError, match="is a link to "):
        locate_pair(town.source_root, town.source_npz, town.source_seg_root, 0)


@pytest.mark.parametrize("name", ["0001", "0001/aerial.jpeg.exr"])
def test_links_are_followed_where_that_is_allowed(name: str, town: RenderedSource, tmp_path: Path) -> None:
    """Anywhere, or into the folders that are named and no others; the error names the folder to allow."""
    path, away = town.source_root / name, tmp_path / "disk2" / name
    away.parent.mkdir(parents=True)
    path.rename(away)
    path.symlink_to(away)
    leads = away if away.is_dir() else away.parent

    def located(follow_links: FollowLinks) -> Path:
        return locate_pair(town.source_root, town.source_npz, None, 0, follow_links=follow_links).views[0].depth

    assert located(True).is_file()
    assert located([tmp_path / "disk2"]).is_file()
    assert located([tmp_path / "elsewhere", leads]).is_file()
    for refused in (False, [], [tmp_path / "elsewhere"], [tmp_path / "disk"]):
        with pytest.raises(PairError, match="is a link to ") as caught:
            located(refused)
        assert f"overfit.pair.follow_links: [{leads}]" in str(caught.value)
        assert f"--follow-links {leads}" in str(caught.value)


def test_a_link_behind_an_allowed_link_is_held_to_the_same_folders(town: RenderedSource, tmp_path: Path) -> None:
    """What counts is where a file really lies, not where the first link leads."""
    scene, disk, secret = town.source_root / "0001", tmp_path / "disk2", tmp_path / "secret"
    scene.rename(disk)
    scene.symlink_to(disk)
    secret.mkdir()
    (disk / "aerial.jpeg.jpg").rename(secret / "a.jpg")
    (disk / "aerial.jpeg.jpg").symlink_to(secret / "a.jpg")
    with pytest.raises(PairError, match=r"is a link to .*secret"):
        locate_pair(town.source_root, town.source_npz, None, 0, follow_links=[disk])
    assert locate_pair(town.source_root, town.source_npz, None, 0, follow_links=[disk, secret]).views[0].image.is_file()


def test_link_loop(town: RenderedSource) -> None:
    """A link to itself is one error."""
    path = town.source_root / "0001" / "aerial.jpeg.jpg"
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(PairError, match="aerial"):
        locate_pair(town.source_root, town.source_npz, None, 0)


@pytest.mark.parametrize("kind", ["jpg", "exr", "npz"])
def test_missing_file(kind: str, town: RenderedSource) -> None:
    """A file that the index names and the disk lacks is named, with the root that was searched."""
    path = town.source_root / "0001" / f"ground.jpeg.{kind}"
    path.unlink()
    with pytest.raises(PairError) as error:
        locate_pair(town.source_root, town.source_npz, None, 0)
    hint = f"  next: pytest-overfit pair create --render --seed 1 --output-root {town.source_root} --overwrite"
    restore = f"{path}: no such file\n  next: restore it, or look whether the root is the"
    if kind == "npz":  # by which a rendered pair is known
        assert str(error.value).startswith(restore)
    else:
        assert str(error.value) == f"{path}: no such file\n{hint}"


@pytest.mark.parametrize("kind", ["jpg", "exr"])
def test_nothing_is_rendered_over_a_data_set(kind: str, town: RenderedSource) -> None:
    """That has the names of a rendered pair, and other cameras."""
    folder = town.source_root / "0001"
    next(path for path in sorted(folder.iterdir()) if path.name.endswith(kind)).unlink()
    for path in folder.glob("*.npz"):
        with np.load(path) as kept:
            arrays = dict(kept)
        arrays["cam2world"][:3, 3] += 1
        np.savez(path, **arrays)
    with pytest.raises(PairError) as error:
        locate_pair(town.source_root, town.source_npz, None, 0)
    assert "restore it, or look whether the root is the right one" in str(error.value)
    assert "--overwrite" not in str(error.value)


def test_missing_scene(town: RenderedSource) -> None:
    """The folder is what is not there, and not each of its files; those that are there are told."""
    scene, others = town.source_root / "0001", [town.source_root / name for name in ("0007", "0008")]
    scene.rename(others[0])
    others[1].mkdir()
    with pytest.raises(PairError) as error:
        locate_pair(town.source_root, town.source_npz, None, 0)
    told = f"{scene}: no such folder: the scene that the index names\n  allowed: of {town.source_root}, there are "
    assert str(error.value).startswith(f"{told}0007, 0008\n  next: restore it")


def test_missing_mask(town: RenderedSource) -> None:
    """A mask that is not there is no error: the view has none."""
    (town.source_seg_root / "0001" / "ground.jpeg.png").unlink()
    pair = locate_pair(town.source_root, town.source_npz, town.source_seg_root, 0)
    assert pair.views[0].mask is not None
    assert pair.views[1].mask is None
