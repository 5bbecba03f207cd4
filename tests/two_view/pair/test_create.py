"""Cutting a pair out of a source: all of it byte for byte, or nothing at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.create import create_pair, write_config
from pytest_overfit.two_view.pair.index import read_index, write_index
from pytest_overfit.two_view.pair.pair_files import PairFiles
from pytest_overfit.two_view.pair.readers import read_view
from pytest_overfit.two_view.pair.synthetic import RenderedSource
from tests.shared_data import shared_data
from tests.two_view.pair.support import write_depth

TREE = {
    "train.npz",
    "val.npz",
    *(f"0001/{tag}.jpeg.{kind}" for tag in ("aerial", "ground") for kind in ("jpg", "exr", "npz")),
    *(f"seg/0001/{tag}.jpeg.png" for tag in ("aerial", "ground")),
}


def _tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes; empty folders count as files without a name of their own."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
        elif not any(path.iterdir()):
            found[path.relative_to(folder).as_posix() + "/"] = b""
    return found


def _create(source: RenderedSource, output: Path, **options: Any) -> PairFiles:
    return create_pair(source.source_root, source.source_seg_root, source.source_npz, output, **options)


@pytest.fixture
def two_pairs(town: RenderedSource) -> RenderedSource:
    """The rendered source with a second pair: the same views, the other way round."""
    write_index(
        town.source_npz,
        scenes=["0001"],
        images=[None, "ground.jpeg", "aerial.jpeg"],
        pairs=[(0, 2, 1, 0.5), (0, 1, 2, 0.25)],
        images_scene_name=["", "0001", "0001"],
    )
    return town


def test_tree_of_a_pair(two_pairs: RenderedSource, tmp_path: Path) -> None:
    """The output holds exactly the files of the layout, equal to the source's, and an index of one pair."""
    output = tmp_path / "new" / "out"
    pair = _create(two_pairs, output, pair_index=1)
    tree = _tree(output)
    assert set(tree) == TREE
    originals = {name: data for name, data in _tree(two_pairs.source_root).items() if not name.endswith("n.npz")}
    assert {name: tree[name] for name in originals if name.startswith("0001")} == {
        name: data for name, data in originals.items() if name.startswith("0001")
    }
    masks = _tree(two_pairs.source_seg_root)
    assert {f"seg/{name}": data for name, data in masks.items()} == {n: d for n, d in tree.items() if n[:4] == "seg/"}
    assert tree["train.npz"] == tree["val.npz"]
    index = read_index(output / "train.npz")
    assert tuple(index.images) == ("ground.jpeg", "aerial.jpeg")
    assert (index.pairs[:].tolist(), index.scores[:].tolist()) == ([[0, 0, 1]], [0.25])
    assert pair.seq_name == "aerial_megadepth_0001_0"
    assert pair.root == output
    assert [read_view(view).depth.shape for view in pair.views] == [(120, 160)] * 2


def test_real_pair_with_disagreeing_ids() -> None:
    """A real pair of the second scene is located by the dialect of rows as well as by records."""
    root, seg = shared_data("real_rgbd", "cropped"), shared_data("real_rgbd", "cropped_seg")
    with pytest.raises(PairError, match="pair_index 2 of 2 pairs"):
        create_pair(root, seg, root / "val.npz", "unused", pair_index=2)


def test_real_pair(tmp_path: Path) -> None:
    """A pair of the real frames is cut out byte for byte, from either dialect of the index."""
    root, seg = shared_data("real_rgbd", "cropped"), shared_data("real_rgbd", "cropped_seg")
    for name, number in (("train.npz", 4), ("val.npz", 1)):
        pair = create_pair(root, seg, root / name, tmp_path / name, pair_index=number)
        tags = [view.tag for view in pair.views]
        assert tags == ["frame-000150.jpeg", "frame-000200.jpeg"]
        for view in pair.views:
            for path in (view.image, view.depth, view.camera):
                assert path.read_bytes() == (root / "0002" / path.name).read_bytes()
    assert _tree(tmp_path / "train.npz") == _tree(tmp_path / "val.npz")


def test_same_pair_again_is_fine(two_pairs: RenderedSource, tmp_path: Path) -> None:
    """Creating the pair that is there already changes nothing, and does not mind a config or logs beside it."""
    output = tmp_path / "out"
    _create(two_pairs, output)
    (output / "single_pair_test.yaml").write_text("a: 1")
    (output / "overfit_logs").mkdir()
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    _create(two_pairs, output)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "town"]


def test_another_pair_needs_overwrite(two_pairs: RenderedSource, tmp_path: Path) -> None:
    """Another pair in the folder is refused without `overwrite`, and replaced with it; the config stays."""
    output = tmp_path / "out"
    _create(two_pairs, output, pair_index=0)
    (output / "single_pair_test.yaml").write_text("a: 1")
    before = _tree(output)
    with pytest.raises(PairError) as error:
        _create(two_pairs, output, pair_index=1)
    assert str(error.value) == (
        f"{output}: already holds 11 files, 0001/aerial.jpeg.exr among them\n"
        "  allowed: a new folder, or one that holds this very pair\n"
        "  next: choose another folder, or overwrite the pair in it (--overwrite)"
    )
    assert _tree(output) == before
    _create(two_pairs, output, pair_index=1, overwrite=True)
    assert tuple(read_index(output / "train.npz").images) == ("ground.jpeg", "aerial.jpeg")
    assert (output / "single_pair_test.yaml").read_text() == "a: 1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "town"]


@pytest.mark.parametrize("name", ["notes.txt", "0001/holiday.jpg", "other/deep/file", "seg/0001/aerial.png", "link"])
def test_overwrite_keeps_foreign_files(name: str, two_pairs: RenderedSource, tmp_path: Path) -> None:
    """A file that no pair has, even one that looks like a picture of it, stops `overwrite`."""
    output = tmp_path / "out"
    _create(two_pairs, output, pair_index=0)
    foreign = output / name
    foreign.parent.mkdir(parents=True, exist_ok=True)
    if name == "link":
        foreign.symlink_to(tmp_path)
    else:
        foreign.write_text("mine")
    before = _tree(output)
    with pytest.raises(PairError) as error:
        _create(two_pairs, output, pair_index=1, overwrite=True)
    assert error.value.found == f"holds {name}, which is not part of a pair (1 such files)"
    assert _tree(output) == before


def test_overwrite_brings_back_what_is_missing(two_pairs: RenderedSource, tmp_path: Path) -> None:
    """Of the very pair: a depth that was renamed is there again, and the renamed file stays."""
    output = tmp_path / "out"
    _create(two_pairs, output, pair_index=0)
    depth = output / "0001" / "aerial.jpeg.exr"
    before = depth.read_bytes()
    depth.rename(output / "0001" / "aerial.exr")
    (output / "val.npz").unlink()
    with pytest.raises(PairError, match="already holds"):
        _create(two_pairs, output, pair_index=0)
    _create(two_pairs, output, pair_index=0, overwrite=True)
    assert depth.read_bytes() == before
    assert (output / "0001" / "aerial.exr").read_bytes() == before
    assert (output / "val.npz").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "town"]


def test_overwrite_never_replaces_a_data_set(two_pairs: RenderedSource) -> None:
    """The source itself, or any index of more than one pair, is nothing to overwrite."""
    before = _tree(two_pairs.source_root)
    with pytest.raises(PairError, match="holds 2 pairs of 3 images"):
        _create(two_pairs, two_pairs.source_root, pair_index=1, overwrite=True)
    assert _tree(two_pairs.source_root) == before


def test_folder_of_something_else(town: RenderedSource, tmp_path: Path) -> None:
    """A folder without an index, a file, and a link in place of the output are refused with and without overwrite."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for name, found in (("photos", "a.jpg"), ("file", "is not a folder"), ("link", "is not a folder")):
        for overwrite in (False, True):
            with pytest.raises(PairError, match=found):
                _create(town, tmp_path / name, overwrite=overwrite)
    assert _tree(tmp_path / "photos") == {"a.jpg": b"x"}


def test_empty_folder_is_filled(town: RenderedSource, tmp_path: Path) -> None:
    """An output folder that exists and is empty is as good as none."""
    (tmp_path / "out").mkdir()
    _create(town, tmp_path / "out")
    assert set(_tree(tmp_path / "out")) == TREE


def test_missing_masks_stay_missing(town: RenderedSource, tmp_path: Path) -> None:
    """A source without some masks, or without any, gives a pair without them."""
    (town.source_seg_root / "0001" / "ground.jpeg.png").unlink()
    pair = _create(town, tmp_path / "one")
    assert [view.mask is None for view in pair.views] == [False, True]
    pair = create_pair(town.source_root, None, town.source_npz, tmp_path / "none")
    assert [view.mask for view in pair.views] == [None, None]
    assert not (tmp_path / "none" / "seg").exists()


def test_mask_that_only_the_folder_has_is_another_pair(town: RenderedSource, tmp_path: Path) -> None:
    """The same views with one mask less are not the identical pair."""
    _create(town, tmp_path / "out")
    with pytest.raises(PairError, match="already holds 10 files"):
        create_pair(town.source_root, None, town.source_npz, tmp_path / "out")


def test_unsound_source_writes_nothing(town: RenderedSource, tmp_path: Path) -> None:
    """A source with NaN in one depth file is refused before anything appears, not even the parent folder."""
    depth = np.ones((120, 160), np.float32)
    depth[0, 0] = np.nan
    write_depth(town.source_root / "0001" / "ground.jpeg.exr", depth)
    with pytest.raises(PairError, match="1 of 19200 depths are NaN"):
        _create(town, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("stage", ["copy", "index", "rename"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("existing", [False, True])
def test_interruption_leaves_nothing_half_written(
    stage: str,
    error: type[BaseException],
    existing: bool,
    two_pairs: RenderedSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C or a full disk, while copying or at the last rename: the folder is as it was, with nothing beside it."""
    output = tmp_path / "out"
    if existing:
        _create(two_pairs, output, pair_index=0)
    before = _tree(tmp_path)
    calls = iter(range(100))

    def copy(source: Path, target: Path) -> None:
        if next(calls) == 5:
            raise error
        Path(target).write_bytes(Path(source).read_bytes())

    def write(path: Path, **_: Any) -> None:
        path.write_bytes(b"half")
        raise error

    rename = Path.rename

    def stop(path: Path, target: Path) -> Path:
        if target == output and path.name == "pair":
            raise error
        return rename(path, target)

    if stage == "copy":
        monkeypatch.setattr(shutil, "copyfile", copy)
    elif stage == "index":
        monkeypatch.setattr("pytest_overfit.two_view.pair.create.write_index", write)
    else:
        monkeypatch.setattr(Path, "rename", stop)
    with pytest.raises(PairError if error is OSError else error):
        _create(two_pairs, output, pair_index=1, overwrite=True)
    assert _tree(tmp_path) == before


def test_another_process_was_faster(town: RenderedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that create the same pair at once both succeed: the second finds the first one's folder."""
    output = tmp_path / "out"
    twin = tmp_path / "twin"
    _create(town, twin)
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        if target == output and not output.exists():
            shutil.copytree(twin, output)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    _create(town, output)
    assert _tree(output) == _tree(twin)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_where_a_config_is_to_be_written(town_pair: PairFiles, tmp_path: Path) -> None:
    """``pair create --create-config`` compares with what is there."""
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(PairError, match="named pipe"):
        write_config(town_pair, tmp_path / "pipe.yaml")
