"""Writing a config and reading what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_overfit.errors import ConfigError
from pytest_overfit.trainer.config import OverfitConfig
from pytest_overfit.trainer.loading import load_config

EXAMPLES = Path(__file__).parents[2] / "example_configs"
SOURCE_ENV = {"OVERFIT_SOURCE_ROOT": "/data/cropped", "OVERFIT_SOURCE_SEG_ROOT": "/data/seg"}


def write(folder: Path, text: str, name: str = "a.yaml") -> Path:
    """A config file of this (dedented) text."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


def load(folder: Path, text: str, overrides: Sequence[str] = ()) -> OverfitConfig:
    """The config that this text gives."""
    return load_config(write(folder, text), overrides)


def problems(path: Path | str, overrides: Sequence[str] = ()) -> list[str]:
    """The problem lines of a config, without the path of the file's folder."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    told = str(caught.value).splitlines()
    lines = [line for line in told if not line.startswith("    change: ")]
    if len(lines) > 1:
        assert lines.pop() == f"{len(lines)} problems in the config"
    return [line.strip().replace(f"{Path(path).parent}/", "") for line in lines]


def problems_in(folder: Path, text: str, overrides: Sequence[str] = ()) -> list[str]:
    """The problem lines that this text gives."""
    return problems(write(folder, text), overrides)
