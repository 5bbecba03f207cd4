"""The pair index (`train.npz`, `val.npz`): read in both dialects, written without pickles, asked for a pair's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.existing_files import existing
from pytest_overfit.two_view.pair.npz import Rows, read_large_npz
from pytest_overfit.two_view.pair.pair_files import (
    FloatArray,
    FollowLinks,
    IntArray,
    PairFiles,
    sequence_name,
    view_files,
)
from pytest_overfit.two_view.pair.unpickle import kind_of

MAX_PAIRS = 2**22  # ids and scores of so many take 128 MiB
KEYS = ("scenes", "images", "pairs", "images_scene_name")
PAIR_DTYPE = np.dtype([("scene_id", "<i8"), ("im1_id", "<i8"), ("im2_id", "<i8"), ("score", "<f8")])
_ID_FIELDS = ("scene_id", "im1_id", "im2_id")
_PAIRS = "rows [scene_id, im1_id, im2_id] or [.., score], or records with these names"


@dataclass(frozen=True, eq=False)
class Names(Sequence[str | None]):
    """The names in an array (N,) of strings, bytes or objects: each becomes a Python string when it is asked for.

    Example:
        >>> names = Names(np.array(["a.jpg", ""]))
        >>> names[0], names[1], len(names)
        ('a.jpg', None, 2)

    A hole, None or the empty string in the file, is None.
    """

    array: npt.NDArray[Any] | Rows

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, at: int) -> str | None: ...
    @overload
    def __getitem__(self, at: slice) -> Names: ...
    def __getitem__(self, at: int | slice) -> str | Names | None:
        if isinstance(at, slice):
            return Names(self.array[at])
        at = range(len(self))[at]
        one = self.array[at : at + 1]
        if one.dtype.kind == "U":  # whose elements may be no characters: numpy raises a SystemError
            words = "utf-32-be" if one.dtype.str[0] == ">" else "utf-32-le"
            value: Any = one.tobytes().decode(words, "replace").rstrip("\0")
        else:
            value = one[0]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return str(value) if isinstance(value, str) and value else None


@dataclass(frozen=True, eq=False)
class LargePairs:
    """The ids (N, 3) of the pairs of a large index, or their scores (N,), read range by range."""

    rows: Rows
    scores: bool

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: slice) -> npt.NDArray[Any]:
        start, _, _ = at.indices(len(self))
        return _pairs(self.rows[at], self.rows.path, first=start)[self.scores]


@dataclass(frozen=True)
class PairIndex:
    """A pair index in arrays, since millions of names would be gigabytes of Python strings; large ones stay on disk.

    `pairs` (N, 3) int64 has scene_id, im1_id, im2_id; `scores` (N,) float64 is NaN where the file has none; `images`
    has None where the file has a hole; `images_scene_name[im]` is the scene that image `im` lies in.
    """

    scenes: Names
    images: Names
    pairs: IntArray | LargePairs
    scores: FloatArray | LargePairs
    images_scene_name: Names

    def __len__(self) -> int:
        return len(self.pairs)


def read_index(path: Path | str) -> PairIndex:
    """Read `path` in either dialect: structured `pairs`, or rows of numbers or objects.

    Example:
        >>> len(read_index("cropped/train.npz"))  # doctest: +SKIP
        39948

    Raises:
        PairError: the file is damaged, holds anything but names and numbers, or a key is missing. The ids of single
            pairs are not judged here: published files hold a few wrong ones (see `locate_pair`).
    """
    where = Path(path)
    arrays = read_large_npz(where, KEYS)
    rows = arrays["pairs"]
    pairs, scores = _pairs(rows[:1] if isinstance(rows, Rows) else rows, where)
    names = {key: _names(arrays[key], where, key) for key in ("scenes", "images", "images_scene_name")}
    if len(names["images_scene_name"]) != len(names["images"]):
        found = f"{len(names['images_scene_name'])} images_scene_name for {len(names['images'])} images"
        raise PairError(found, where=where, allowed="one scene name per image")
    index = PairIndex(names["scenes"], names["images"], pairs, scores, names["images_scene_name"])
    if isinstance(rows, Rows):
        return replace(index, pairs=LargePairs(rows, scores=False), scores=LargePairs(rows, scores=True))
    return index


def write_index(
    path: Path | str,
    *,
    scenes: Sequence[str],
    images: Sequence[str | None],
    pairs: Sequence[tuple[int, int, int, float]],
    images_scene_name: Sequence[str],
) -> None:
    """Write an index of plain arrays: no pickle, so that `np.load(path)` reads it with and without `allow_pickle`.

    Example:
        >>> write_index("train.npz", scenes=["0001"], images=["a.jpg", "b.jpg"], pairs=[(0, 0, 1, 0.7)],
        ...             images_scene_name=["0001", "0001"])

    A hole among the images becomes the empty string, which `read_index` gives back as None.
    """
    with Path(path).open("wb") as file:
        np.savez(
            file,
            scenes=np.array(list(scenes), dtype=np.str_),
            images=np.array([name or "" for name in images], dtype=np.str_),
            pairs=np.array([tuple(pair) for pair in pairs], dtype=PAIR_DTYPE),
            images_scene_name=np.array(list(images_scene_name), dtype=np.str_),
        )


def locate_pair(
    root: Path | str,
    split_file: Path | str,
    segmentation_root: Path | str | None,
    pair_index: int,
    *,
    index: PairIndex | None = None,
    follow_links: FollowLinks = False,
) -> PairFiles:
    """The files of pair number `pair_index` of `split_file`.

    Example:
        >>> locate_pair("cropped", "cropped/train.npz", "cropped_seg", 0).views[1].tag  # doctest: +SKIP
        '0001_083.jpeg'

    Args:
        root: the folder of the scenes.
        split_file: the index, as a path of its own (not below `root`).
        segmentation_root: the folder of the masks; a view without a mask there has `mask=None`.
        pair_index: which row of `pairs`.
        index: `split_file`, already read.
        follow_links: whether a scene or a file may be a link that leads out of its folder: True, or the folders that
            it may lead into.

    Raises:
        PairError: the pair is not in the index, its ids lead nowhere or into two scenes, a name or a link leaves its
            folder, or a file other than a mask is missing.
    """
    where, base = Path(split_file), Path(root)
    masks = None if segmentation_root is None else Path(segmentation_root)
    table = read_index(where) if index is None else index
    if isinstance(pair_index, bool) or not isinstance(pair_index, (int, np.integer)):
        raise PairError(f"pair_index {pair_index!r:.60}", where=where, allowed="a whole number")
    if not 0 <= pair_index < len(table):
        raise PairError(f"pair_index {pair_index} of {len(table)} pairs", where=where, allowed=_range(len(table)))
    ids = table.pairs[pair_index : pair_index + 1][0]
    (scene1, tag1), (scene2, tag2) = (_view_name(table, where, pair_index, field, int(ids[field])) for field in (1, 2))
    if scene1 != scene2:
        raise PairError(
            f"pairs[{pair_index}] joins an image of scene {scene1!r} and one of scene {scene2!r} (images_scene_name)",
            where=where,
            allowed="two images of one scene",
        )
    views = tuple(existing(view_files(base, masks, scene1, tag), base, masks, follow_links) for tag in (tag1, tag2))
    return PairFiles(base, where, masks, int(pair_index), sequence_name(scene1, int(pair_index)), (views[0], views[1]))


def _range(count: int) -> str:
    return f"0 to {count - 1}" if count else "nothing: the index holds no pair"


def _view_name(table: PairIndex, where: Path, pair_index: int, field: int, image: int) -> tuple[str, str]:
    """Scene and tag of one image of a pair; `images_scene_name` is right where `scene_id` disagrees."""
    key = f"pairs[{pair_index}].{_ID_FIELDS[field]}"
    if not 0 <= image < len(table.images):
        raise PairError(f"{key} is {image}", where=where, allowed=f"{_range(len(table.images))} (the images)")
    tag = table.images[image]
    if tag is None:
        raise PairError(f"{key} is {image}, and images[{image}] is a hole", where=where, allowed="an image with a name")
    scene = table.images_scene_name[image] or ""
    _refuse_unsafe_name(scene, where, f"images_scene_name[{image}]")
    _refuse_unsafe_name(tag, where, f"images[{image}]")
    return scene, tag


def _refuse_unsafe_name(name: str, where: Path, key: str) -> None:
    """A PairError that names the key, unless `name` is one plain component of a path."""
    bad = not name or name in (".", "..") or len(name.encode("utf-8", "replace")) > 200
    if bad or any(char in "/\\" or not char.isprintable() for char in name):
        raise PairError(f"{key} is {name[:80]!r}", where=where, allowed="one plain file name, without separators")


def _names(array: npt.NDArray[Any] | Rows, where: Path, key: str) -> Names:
    """The strings of a 1-D array, none of them looked at but where the array may hold other things."""
    if array.ndim != 1 or array.dtype.kind not in "USO":
        raise PairError(f"{key} is {array.ndim}-D {array.dtype!s:.80}", where=where, allowed="a 1-D array of names")
    if not isinstance(array, Rows) and array.dtype == object:
        for at, value in enumerate(array.flat):
            if value is not None and not isinstance(value, (str, bytes)):
                raise PairError(f"{key}[{at}] is {kind_of(value)}", where=where, allowed="a name or None")
    return Names(array)


def _pairs(array: npt.NDArray[Any], where: Path, first: int = 0) -> tuple[IntArray, FloatArray]:
    """`pairs` of any dialect, from the first of these on, as (N, 3) int64 ids and (N,) float64 scores."""
    if array.ndim and len(array) > MAX_PAIRS:
        raise PairError(f"holds {len(array)} pairs", where=where, allowed=f"at most {MAX_PAIRS}")
    if array.dtype.names is not None:
        missing = [name for name in _ID_FIELDS if name not in array.dtype.names]
        if missing or array.ndim != 1:
            raise PairError(f"pairs is {array.ndim}-D with fields {array.dtype.names}", where=where, allowed=_PAIRS)
        columns = [array[name] for name in _ID_FIELDS]
        scores = array["score"] if "score" in array.dtype.names else np.full(len(array), np.nan)
    else:
        if array.ndim == 1 and array.dtype == object and all(isinstance(row, (list, tuple)) for row in array):
            array = _rows(array.tolist(), where)
        if array.ndim != 2 or array.shape[1] not in (3, 4) or array.dtype.kind not in "iufO":
            raise PairError(f"pairs has shape {array.shape} of {array.dtype!s:.80}", where=where, allowed=_PAIRS)
        columns = [array[:, at] for at in range(3)]
        scores = array[:, 3] if array.shape[1] == 4 else np.full(len(array), np.nan)
    ids = [_whole(column, where, name, first) for column, name in zip(columns, _ID_FIELDS, strict=True)]
    return np.stack(ids, axis=1), _numbers(scores, where, "score")


def _rows(rows: list[Sequence[Any]], where: Path) -> npt.NDArray[Any]:
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise PairError(f"pairs has rows of {sorted(widths)[:8]} values", where=where, allowed=_PAIRS)
    table = np.empty((len(rows), widths.pop()), dtype=object)
    for at, row in enumerate(rows):
        for column, value in enumerate(row):
            table[at, column] = value
    return table


def _numbers(column: npt.NDArray[Any], where: Path, name: str) -> FloatArray:
    if column.dtype == object:
        for at, value in enumerate(column.tolist()):
            if type(value) not in (int, float) or abs(value) >= 2**63:
                raise PairError(f"pairs[{at}].{name} is {kind_of(value)}", where=where, allowed="a number")
    elif column.dtype.kind not in "iuf":
        raise PairError(f"pairs: {name} is {column.dtype!s:.80}", where=where, allowed="numbers")
    return column.astype(np.float64)


def _whole(column: npt.NDArray[Any], where: Path, name: str, first: int) -> IntArray:
    """A column of ids; floats are taken where they are whole numbers."""
    if column.dtype.kind in "iu":
        return column.astype(np.int64)
    numbers = _numbers(column, where, name)
    wrong = np.flatnonzero(~(np.abs(numbers) < 2**53) | (numbers != np.floor(numbers)))
    if len(wrong):
        raise PairError(
            f"pairs[{first + wrong[0]}].{name} is {numbers[wrong[0]]}", where=where, allowed="a whole number"
        )
    return numbers.astype(np.int64)
