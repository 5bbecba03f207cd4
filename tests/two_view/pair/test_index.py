"""The pair index: both dialects, names that stay in their folder, ids that lead somewhere."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair import npz
from pytest_overfit.two_view.pair.index import MAX_PAIRS, PAIR_DTYPE, locate_pair, read_index, write_index
from pytest_overfit.two_view.pair.pair_files import FollowLinks
from pytest_overfit.two_view.pair.synthetic import RenderedSource
from tests.shared_data import shared_data

TAGS = ["aerial.jpeg", "ground.jpeg"]


def _write(path: Path, **changed: Any) -> Path:
    """An index of the rendered scene 0001 with some keys replaced."""
    keys: dict[str, Any] = {
        "scenes": np.array(["0001"]),
        "images": np.array(TAGS, dtype=object),
        "pairs": np.array([(0, 0, 1, 0.5)], dtype=PAIR_DTYPE),
        "images_scene_name": np.array(["0001", "0001"], dtype=object),
    }
    keys.update(changed)
    np.savez(path, **keys)
    return path


def _rows(*rows: Any) -> Any:
    array = np.empty(len(rows), dtype=object)
    array[:] = rows
    return array


def _refused(path: Path, **changed: Any) -> str:
    with pytest.raises(PairError) as error:
        read_index(_write(path, **changed))
    return str(error.value).removeprefix(f"{path}: ")


def test_real_data_in_both_dialects() -> None:
    """The two published dialects give the same pairs; a hole stays a hole."""
    structured = read_index(shared_data("real_rgbd", "cropped", "train.npz"))
    rows = read_index(shared_data("real_rgbd", "cropped", "val.npz"))
    assert structured.pairs[:].tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 4], [1, 5, 6], [1, 6, 7]]
    assert structured.scores[:].tolist() == [0.71, 0.64, 0.42, 0.55, 0.31]
    assert rows.pairs[:].tolist() == structured.pairs[3:].tolist()
    assert rows.scores[:].tolist() == structured.scores[3:].tolist()
    assert tuple(rows.images) == tuple(structured.images)
    assert tuple(structured.images[:2]) == (None, "frame-000000.jpeg")
    assert tuple(structured.scenes) == tuple(rows.scenes) == ("0001", "0002")
    assert structured.images_scene_name[5] == "0002"


@pytest.mark.parametrize(
    "pairs",
    [
        np.array([(7, 0, 1)], dtype=[("scene_id", "i4"), ("im1_id", "i4"), ("im2_id", "u2")]),
        np.array([[7, 0, 1]]),
        np.array([[7.0, 0.0, 1.0]]),
        np.array([[7, 0, 1]], dtype=object),
        np.array([[7, np.int64(0), np.float32(1)]], dtype=object),
        _rows((7, 0, 1)),
        _rows([7, 0.0, np.int32(1)]),
    ],
    ids=["records", "ints", "floats", "objects", "numpy scalars", "tuples", "lists"],
)
@pytest.mark.parametrize("score", [None, 0.25])
def test_dialects_of_pairs(pairs: Any, score: float | None, tmp_path: Path) -> None:
    """Records, numbers, objects and rows of them give one and the same table, with and without a score."""
    if score is not None:
        if pairs.dtype.names:
            with_score = np.zeros(
                1, dtype=[*((name, pairs.dtype[name]) for name in pairs.dtype.names), ("score", "f4")]
            )
            for name in pairs.dtype.names:
                with_score[name] = pairs[name]
            with_score["score"] = score
            pairs = with_score
        elif pairs.ndim == 1:
            pairs = _rows(type(pairs[0])([*pairs[0], score]))
        else:
            pairs = np.concatenate([pairs.astype(object), [[score]]], axis=1)
    index = read_index(_write(tmp_path / "train.npz", pairs=pairs))
    assert index.pairs[:].dtype == np.int64
    assert index.pairs[:].tolist() == [[7, 0, 1]]
    np.testing.assert_array_equal(index.scores, [np.nan if score is None else score])


def test_written_index_needs_no_pickle(tmp_path: Path) -> None:
    """What `write_index` writes is read by numpy with and without pickles, and by `read_index` unchanged."""
    path = tmp_path / "train.npz"
    write_index(
        path,
        scenes=["a", "bcd"],
        images=["x.jpg", None, "y.jpeg"],
        pairs=[(0, 0, 2, 0.5), (1, 2, 0, float("nan"))],
        images_scene_name=["a", "", "a"],
    )
    for allow in (False, True):
        with np.load(path, allow_pickle=allow) as file:
            assert [tuple(row)[:3] for row in file["pairs"]] == [(0, 0, 2), (1, 2, 0)]
            assert file["images"].tolist() == ["x.jpg", "", "y.jpeg"]
    index = read_index(path)
    assert tuple(index.images) == ("x.jpg", None, "y.jpeg")
    assert tuple(index.images_scene_name) == ("a", None, "a")
    assert index.pairs[:].tolist() == [[0, 0, 2], [1, 2, 0]]
    assert index.scores[:1] == 0.5
    assert np.isnan(index.scores[1:])
    assert len(index) == 2


def test_empty_index(tmp_path: Path) -> None:
    """An index without pairs can be read; asking it for one is the error."""
    path = tmp_path / "train.npz"
    write_index(path, scenes=[], images=[], pairs=[], images_scene_name=[])
    assert len(read_index(path)) == 0
    with pytest.raises(PairError) as error:
        locate_pair(tmp_path, path, None, 0)
    assert str(error.value) == f"{path}: pair_index 0 of 0 pairs\n  allowed: nothing: the index holds no pair"


def test_millions_of_pairs(tmp_path: Path) -> None:
    """A structured index of two million pairs is read without a Python loop over its pairs."""
    pairs = np.zeros(2_000_000, dtype=PAIR_DTYPE)
    pairs["im2_id"] = 1
    index = read_index(_write(tmp_path / "train.npz", pairs=pairs))
    assert len(index) == 2_000_000
    assert index.pairs[-1:].tolist() == [[0, 0, 1]]


ALLOWED = "\n  allowed: rows [scene_id, im1_id, im2_id] or [.., score], or records with these names"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pairs": np.zeros((1, 2))}, f"pairs has shape (1, 2) of float64{ALLOWED}"),
        ({"pairs": np.zeros(3)}, f"pairs has shape (3,) of float64{ALLOWED}"),
        ({"pairs": np.array([["a", "b", "c"]])}, f"pairs has shape (1, 3) of <U1{ALLOWED}"),
        ({"pairs": _rows((0, 0, 1), (0, 1))}, f"pairs has rows of [2, 3] values{ALLOWED}"),
        ({"pairs": np.zeros(1, dtype=[("a", "i8")])}, f"pairs is 1-D with fields ('a',){ALLOWED}"),
        ({"pairs": np.array([[0, "x", 1]], dtype=object)}, "pairs[0].im1_id is str\n  allowed: a number"),
        ({"pairs": np.array([[0, 1, True]], dtype=object)}, "pairs[0].im2_id is bool\n  allowed: a number"),
        ({"pairs": np.array([[0, 1, 2**70]], dtype=object)}, "pairs[0].im2_id is int\n  allowed: a number"),
        ({"pairs": np.array([[0, 1, 1.5]])}, "pairs[0].im2_id is 1.5\n  allowed: a whole number"),
        ({"pairs": np.array([[0, np.nan, 1]])}, "pairs[0].im1_id is nan\n  allowed: a whole number"),
        ({"images": np.array([["a", "b"]])}, "images is 2-D <U1\n  allowed: a 1-D array of names"),
        ({"images": np.array([1, 2])}, "images is 1-D int64\n  allowed: a 1-D array of names"),
        ({"images": _rows("a", 7)}, "images[1] is int\n  allowed: a name or None"),
        (
            {"images_scene_name": np.array(["0001"])},
            "1 images_scene_name for 2 images\n  allowed: one scene name per image",
        ),
    ],
)
def test_malformed_keys(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Each malformed key is one error that names the key, the place and the value."""
    assert _refused(tmp_path / "train.npz", **changed) == message


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
    path = _write(
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
    assert _located(root, _write(tmp_path / "train.npz"), pair_index) == message


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
            {"images": _rows("aerial.jpeg", None)},
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
    assert _located(root, _write(tmp_path / "train.npz", **changed)) == message


@pytest.mark.parametrize(
    "name", ["..", ".", "../0001/aerial.jpeg", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "x" * 300, "\ud800"]
)
@pytest.mark.parametrize("key", ["images", "images_scene_name"])
def test_names_cannot_leave_their_folder(key: str, name: str, root: Path, tmp_path: Path) -> None:
    """A scene or a tag that is not one plain file name is refused."""
    message = _located(root, _write(tmp_path / "train.npz", **{key: _rows(name, name)}))
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
    assert str(error.value) == f"{path}: no such file\n{hint}"


def test_missing_mask(town: RenderedSource) -> None:
    """A mask that is not there is no error: the view has none."""
    (town.source_seg_root / "0001" / "ground.jpeg.png").unlink()
    pair = locate_pair(town.source_root, town.source_npz, town.source_seg_root, 0)
    assert pair.views[0].mask is not None
    assert pair.views[1].mask is None


def test_names_stay_in_their_array(tmp_path: Path) -> None:
    """An index of half a million names is read in the memory of its arrays: no name becomes a Python string."""
    count = 2**19
    path = _write(
        tmp_path / "train.npz",
        images=np.full(count, "a.jpg"),
        images_scene_name=np.full(count, "0001"),
        pairs=np.zeros((count, 3), dtype=np.int8),
    )
    tracemalloc.start()
    try:
        index = read_index(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (index.images[count - 1], index.images_scene_name[-1], len(index)) == ("a.jpg", "0001", count)
    arrays = count * (4 * 5 + 4 * 4 + 3 + 3 * 8 + 8)  # names, pairs as they are, ids, scores
    assert peak < 2 * arrays


def test_too_many_pairs(tmp_path: Path) -> None:
    """Pairs of one byte each would grow by eight as 64-bit ids: their number is bounded."""
    with pytest.raises(PairError) as error:
        read_index(_write(tmp_path / "train.npz", pairs=np.zeros((MAX_PAIRS + 1, 3), dtype=np.int8)))
    assert error.value.found == f"holds {MAX_PAIRS + 1} pairs"


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("records", [True, False])
def test_a_large_index_is_read_row_by_row(
    town: RenderedSource, monkeypatch: pytest.MonkeyPatch, write: Callable[..., None], records: bool
) -> None:
    """Its last pair is the one of the small index; what it holds is never in memory as a whole."""
    count, small = 2**16, read_index(town.source_npz)
    names = np.full(count, "a.jpg", dtype="<U40")
    names[-2:] = tuple(small.images)
    rows = np.zeros(count, dtype=PAIR_DTYPE)
    rows[-1] = (0, count - 2, count - 1, 0.25)
    pairs = rows if records else np.array([list(row) for row in rows.tolist()])
    scenes = np.full(count, small.images_scene_name[0])
    write(town.source_npz, scenes=scenes[:1], images=names, pairs=pairs, images_scene_name=scenes)
    monkeypatch.setattr(npz, "MAX_ARRAY_BYTES", 2**20)
    tracemalloc.start()
    try:
        index = read_index(town.source_npz)
        pair = locate_pair(town.source_root, town.source_npz, None, count - 1, index=index)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [view.tag for view in pair.views] == list(small.images)
    assert (len(index), index.scores[count - 1 : count].tolist()) == (count, [0.25])
    assert index.pairs[count - 2 :].tolist() == [[0, 0, 0], [0, count - 2, count - 1]]
    assert (index.images[0], index.images[-1]) == ("a.jpg", small.images[-1])
    assert peak < 2**22  # of 2**24


def test_a_large_index_that_changes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks it may become another, or lose its end; an id that is no number says which pair."""
    monkeypatch.setattr(npz, "MAX_ARRAY_BYTES", 2**10)
    rows = np.zeros((500, 3))
    rows[333, 1] = 0.5
    path = _write(tmp_path / "train.npz", pairs=rows)
    index = read_index(path)
    with pytest.raises(PairError, match=re.escape("pairs[333].im1_id is 0.5")):
        index.pairs[300:400]
    _write(path, pairs=np.zeros((400, 3)))
    with pytest.raises(PairError, match="is not what it was"):
        index.pairs[0:1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PairError):
        index.pairs[0:1]


def test_a_large_index_makes_no_claim_that_it_cannot_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large array in another order is no rows, and is refused as before; pickles are too."""
    monkeypatch.setattr(npz, "MAX_ARRAY_BYTES", 2**10)
    for pairs in (np.asfortranarray(np.zeros((500, 3))), np.array([[0, 0, 1]] * 500, dtype=object)):
        with pytest.raises(PairError, match=r"claims \d+ bytes"):
            read_index(_write(tmp_path / "train.npz", pairs=pairs))
