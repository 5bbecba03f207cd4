"""Index files that the tests of this room write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pytest_overfit.two_view.pair.index import PAIR_DTYPE

TAGS = ["aerial.jpeg", "ground.jpeg"]


def write_arrays(path: Path, **changed: Any) -> Path:
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


def rows_of(*rows: Any) -> Any:
    array = np.empty(len(rows), dtype=object)
    array[:] = rows
    return array
