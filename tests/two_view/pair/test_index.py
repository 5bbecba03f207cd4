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
from pytest_overfit.two_view.pair.synthetic import RenderedSource
from tests.shared_data import shared_data
from tests.two_view.pair.index_files import rows_of, write_arrays


def _refused(path: Path, **changed: Any) -> str:
    with pytest.raises(PairError) as error:
        read_index(write_arrays(path, **changed))
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
        rows_of((7, 0, 1)),
        rows_of([7, 0.0, np.int32(1)]),
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
            pairs = rows_of(type(pairs[0])([*pairs[0], score]))
        else:
            pairs = np.concatenate([pairs.astype(object), [[score]]], axis=1)
    index = read_index(write_arrays(tmp_path / "train.npz", pairs=pairs))
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
    index = read_index(write_arrays(tmp_path / "train.npz", pairs=pairs))
    assert len(index) == 2_000_000
    assert index.pairs[-1:].tolist() == [[0, 0, 1]]


ALLOWED = "\n  allowed: rows [scene_id, im1_id, im2_id] or [.., score], or records with these names"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pairs": np.zeros((1, 2))}, f"pairs has shape (1, 2) of float64{ALLOWED}"),
        ({"pairs": np.zeros(3)}, f"pairs has shape (3,) of float64{ALLOWED}"),
        ({"pairs": np.array([["a", "b", "c"]])}, f"pairs has shape (1, 3) of <U1{ALLOWED}"),
        ({"pairs": rows_of((0, 0, 1), (0, 1))}, f"pairs has rows of [2, 3] values{ALLOWED}"),
        ({"pairs": np.zeros(1, dtype=[("a", "i8")])}, f"pairs is 1-D with fields ('a',){ALLOWED}"),
        ({"pairs": np.array([[0, "x", 1]], dtype=object)}, "pairs[0].im1_id is str\n  allowed: a number"),
        ({"pairs": np.array([[0, 1, True]], dtype=object)}, "pairs[0].im2_id is bool\n  allowed: a number"),
        ({"pairs": np.array([[0, 1, 2**70]], dtype=object)}, "pairs[0].im2_id is int\n  allowed: a number"),
        ({"pairs": np.array([[0, 1, 1.5]])}, "pairs[0].im2_id is 1.5\n  allowed: a whole number"),
        ({"pairs": np.array([[0, np.nan, 1]])}, "pairs[0].im1_id is nan\n  allowed: a whole number"),
        ({"images": np.array([["a", "b"]])}, "images is 2-D <U1\n  allowed: a 1-D array of names"),
        ({"images": np.array([1, 2])}, "images is 1-D int64\n  allowed: a 1-D array of names"),
        ({"images": rows_of("a", 7)}, "images[1] is int\n  allowed: a name or None"),
        (
            {"images_scene_name": np.array(["0001"])},
            "1 images_scene_name for 2 images\n  allowed: one scene name per image",
        ),
    ],
)
def test_malformed_keys(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Each malformed key is one error that names the key, the place and the value."""
    assert _refused(tmp_path / "train.npz", **changed) == message


def test_names_stay_in_their_array(tmp_path: Path) -> None:
    """An index of half a million names is read in the memory of its arrays: no name becomes a Python string."""
    count = 2**19
    path = write_arrays(
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
        read_index(write_arrays(tmp_path / "train.npz", pairs=np.zeros((MAX_PAIRS + 1, 3), dtype=np.int8)))
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
    path = write_arrays(tmp_path / "train.npz", pairs=rows)
    index = read_index(path)
    with pytest.raises(PairError, match=re.escape("pairs[333].im1_id is 0.5")):
        index.pairs[300:400]
    write_arrays(path, pairs=np.zeros((400, 3)))
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
            read_index(write_arrays(tmp_path / "train.npz", pairs=pairs))
