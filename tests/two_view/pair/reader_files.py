"""Small images and depths, and the error of a reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_overfit.errors import PairError

DEPTH = np.linspace(0.5, 80, 30 * 40, dtype=np.float32).reshape(30, 40)
COLOUR = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
GREY = COLOUR[..., 0]


def error_of(read: Any, path: Path) -> str:
    with pytest.raises(PairError) as error:
        read(path)
    return str(error.value).removeprefix(f"{path}: ")


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
