"""Damaged files of every kind: a value or a PairError, never another exception, a crash or a lot of memory."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from pytest_overfit.errors import PairError
from pytest_overfit.two_view.pair.index import read_index, write_index
from pytest_overfit.two_view.pair.readers import read_camera, read_depth, read_image, read_labels
from tests.two_view.pair.support import (
    COMPRESSIONS,
    image_bytes,
    mutate,
    mutate_npz,
    mutate_png,
    npy_bytes,
    npz_bytes,
    write_camera,
    write_depth,
)

ROUNDS = 500
PICTURE = np.random.default_rng(1).integers(0, 9, (40, 50, 3)).astype(np.uint8)


def _indices(folder: Path) -> list[bytes]:
    """A plain index, and one with pickled names and rows."""
    path = folder / "plain.npz"
    write_index(
        path,
        scenes=["0001"],
        images=[None, "a.jpg", "b.jpg"],
        pairs=[(0, 1, 2, 0.5)] * 3,
        images_scene_name=["", "0001", "0001"],
    )
    members = {
        "scenes": np.array(["0001"], dtype=object),
        "images": np.array([None, "a.jpg", np.str_("b.jpg")], dtype=object),
        "pairs": np.array([[0, 1, 2, 0.5], [0, 2, np.int64(1), np.float32(0.25)]], dtype=object),
        "images_scene_name": np.array(["", "0001", "0001"], dtype=object),
    }
    return [path.read_bytes(), npz_bytes({key: npy_bytes(array) for key, array in members.items()})]


def _depths(folder: Path) -> list[bytes]:
    """One small file per compression and number type."""
    depth = np.random.default_rng(0).random((40, 50))
    return [
        write_depth(folder / "a.exr", depth.astype(dtype), compression=compression, comment="hello").read_bytes()
        for compression in COMPRESSIONS
        for dtype in (np.float32, np.float16)
    ]


def _cameras(folder: Path) -> list[bytes]:
    return [write_camera(folder / "a.npz").read_bytes()]


def _jpegs(_: Path) -> list[bytes]:
    return [image_bytes(PICTURE, "JPEG"), image_bytes(PICTURE, "JPEG", progressive=True)]


def _pngs(_: Path) -> list[bytes]:
    grey = PICTURE[..., 0]
    return [image_bytes(grey, "PNG"), image_bytes(np.dstack([grey] * 3), "PNG")]


CASES: dict[str, tuple[Callable[[Path], Any], Callable[[Path], list[bytes]], Callable[[bytes, Random], bytes]]] = {
    "index": (read_index, _indices, mutate),
    "index under a sound zip": (read_index, _indices, mutate_npz),
    "camera": (read_camera, _cameras, mutate),
    "camera under a sound zip": (read_camera, _cameras, mutate_npz),
    "depth": (read_depth, _depths, mutate),
    "jpeg": (read_image, _jpegs, mutate),
    "png": (read_labels, _pngs, mutate),
    "png with right checksums": (read_labels, _pngs, mutate_png),
}


@pytest.mark.parametrize("name", CASES)
def test_damaged_files_raise_pair_errors_only(name: str, tmp_path: Path) -> None:
    """500 damaged files per reader: a value or a PairError that names the file, at less than 100 MB more."""
    read, originals, damage = CASES[name]
    whole = originals(tmp_path)
    path = tmp_path / "damaged"
    random, refused, unnamed = Random(f"pytest-overfit {name}"), 0, 0
    for data in whole:
        path.write_bytes(data)
        read(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(ROUNDS):
        path.write_bytes(damage(random.choice(whole), random))
        try:
            read(path)
        except PairError as error:
            refused += 1
            unnamed += str(path) not in str(error)
    assert unnamed == 0
    assert refused > ROUNDS // 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
