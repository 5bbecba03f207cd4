"""The records: derived properties, and that importing them costs nothing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_overfit.settings.settings import Budget, OverfitSettings
from pytest_overfit.trainer.config import OverfitConfig, SplitConfig

HEAVY = ("omegaconf", "hydra", "yaml", "torch", "numpy", "cv2")


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_records_import_nothing_heavy() -> None:
    """The records, and the module that loads them, are imported without Hydra, OmegaConf, YAML or torch."""
    assert imported_by("import pytest_overfit.settings.settings, pytest_overfit.trainer.loading") == set()


def test_the_import_check_can_fail() -> None:
    """The subprocess check above sees a heavy import when there is one."""
    assert imported_by("import omegaconf") >= {"omegaconf", "yaml"}


@pytest.mark.parametrize(
    ("size", "patch", "aspect", "height"),
    [(518, 14, 0.92, 476), (224, 14, 0.92, 196), (112, 14, 0.92, 98), (518, 14, 1.0, 518), (512, 16, 0.75, 384)],
)
def test_height_is_whole_patches(size: int, patch: int, aspect: float, height: int) -> None:
    """The height is the aspect ratio's share of the width, rounded down to whole patches."""
    split = SplitConfig(img_size=size, patch_size=patch, aspect_ratio=aspect)
    assert (split.height, split.width) == (height, size)


def test_planned_steps() -> None:
    """The budget's step limit wins over epochs times steps per epoch."""
    config = OverfitConfig(Path("a.yaml"), "a", max_epochs=7)
    limited = OverfitConfig(Path("a.yaml"), "a", overfit=OverfitSettings(budget=Budget(max_steps=33)))
    assert (config.planned_steps, limited.planned_steps) == (70, 33)


def test_records_pickle() -> None:
    """A config survives pickling, which xdist and loader workers need."""
    config = OverfitConfig(Path("a.yaml"), "a")
    assert pickle.loads(pickle.dumps(config)) == config


def test_records_are_frozen() -> None:
    """Nobody changes a config after it was checked."""
    with pytest.raises(AttributeError):
        OverfitConfig(Path("a.yaml"), "a").seed = 1  # type: ignore[misc]
