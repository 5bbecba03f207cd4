"""Where a key of a composed config is written: the file of its ``defaults``, and the line there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_overfit.settings.overrides import parse_override
from pytest_overfit.settings.plain_yaml import key_lines
from pytest_overfit.settings.problems import Unusable
from pytest_overfit.trainer.config_file import parse, read_text
from pytest_overfit.trainer.merge import merged_files


def written_keys(path: Path, overrides: Sequence[str] = ()) -> Mapping[str, tuple[Path, int]]:
    """Every dotted key of a config with the file whose value counts, and its line there, from 1.

    Of a config that only Hydra composes, and of one that is broken, the keys of the file itself.

    Example:
        >>> written_keys(Path("top.yaml"))["optim.optimizer.lr"]                          # doctest: +SKIP
        (PosixPath('base.yaml'), 12)
    """
    import yaml

    try:
        choices = [parse_override(text) for text in overrides]
        files = merged_files(path, parse(read_text(path)), choices)
    except Unusable:
        files = [(path, "")]
    found: dict[str, tuple[Path, int]] = {}
    for file, package in files:
        try:
            lines = key_lines(read_text(file))
        except (Unusable, ValueError, RecursionError, yaml.YAMLError):
            continue
        found |= {f"{package}.{key}".lstrip("."): (file, line) for key, line in lines.items()}
    return found


def place_of(keys: Mapping[str, tuple[Path, int]], key: str, top: Path) -> tuple[Path, int]:
    """Where a key is written, or the nearest one above it that is; else the first line of the file itself."""
    while key and key not in keys:
        key = key.rpartition(".")[0]
    return keys.get(key, (top, 1))
