"""The shared reference data beside the checkout: never part of it, so a test that needs them finds them here."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Golden:
    """One pair, how to load it, and what the original trainer made of it.

    `arrays` and `numbers` are the reference: see the keys of the files.
    """

    root: Path
    split_file: Path
    segmentation_root: Path
    pair_index: int
    img_size: int
    aspect_ratio: float
    arrays: dict[str, npt.NDArray[Any]]
    numbers: dict[str, Any]


def shared_data(*parts: str) -> Path:
    """A path below ../shared/data; without it the test is skipped, and fails where CI=true."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        reason = f"needs the shared reference data at {path}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def golden(name: str) -> Golden:
    """The golden reference `pair0_112` or `real1_252`."""
    with np.load(shared_data("golden", f"{name}.npz"), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    numbers = json.loads(shared_data("golden", f"{name}.json").read_text(encoding="utf-8"))
    if name == "pair0_112":
        root = shared_data("golden", "pair0")
        return Golden(root, root / "train.npz", root / "seg", 0, 112, 0.93, arrays, numbers)
    root = shared_data("real_rgbd", "cropped")
    labels = shared_data("real_rgbd", "cropped_seg")
    return Golden(root, root / "train.npz", labels, 1, 252, 0.75, arrays, numbers)


GOLDEN = ("pair0_112", "real1_252")
