"""Folders and files that a config names by half."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.trainer.imports import find_import_roots, find_path, folders_above, with_found_paths


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """``repository/training/config`` beside ``repository/net``, with a marker of a repository."""
    root = tmp_path / "above" / "repository"
    (root / "training" / "config").mkdir(parents=True)
    (root / "training" / "loss.py").touch()
    (root / "net").mkdir()
    (root / "net" / "__init__.py").touch()
    return root


@pytest.mark.parametrize("mark", [".git", "pyproject.toml"])
def test_in_a_repository_all_folders_up_to_its_root(checkout: Path, mark: str) -> None:
    """The nearest first, whatever the targets are: what they import may lie above them."""
    (checkout / mark).touch()
    config = checkout / "training" / "config"
    assert find_import_roots(config, {}) == (config, checkout / "training", checkout)
    assert folders_above(config) == ((config, checkout / "training", checkout), True)


def test_elsewhere_only_folders_that_have_a_target(checkout: Path) -> None:
    """And the config's own; a home folder full of scripts must not get in front of installed packages."""
    config = checkout / "training" / "config"
    tree = {
        "loss": {"_target_": "loss.Loss"},
        "parts": [{"model": {"_target_": "net.Net"}}],
        "other": {"_target_": "a.B"},
    }
    assert find_import_roots(config, tree) == (config, checkout / "training", checkout)
    assert find_import_roots(config, {"loss": {"_target_": "torch.nn.L1Loss"}}) == (config,)


def test_relative_paths_are_found_from_the_working_folder_up(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pytest was started, beside the config, or in a folder above it; never guessed."""
    (checkout / "pyproject.toml").touch()
    config = checkout / "training" / "config"
    (checkout / "pair").mkdir()
    assert find_path("pair", config) == checkout / "pair"
    assert find_path("nowhere/pair", config) is None
    assert find_path("\0", config) is None
    monkeypatch.chdir(checkout.parent)
    (checkout.parent / "pair").mkdir()
    assert find_path("pair", config) == checkout.parent / "pair"


def test_only_what_is_a_path_is_replaced(checkout: Path) -> None:
    """A split called train is a word, also where a folder of that name lies about."""
    (checkout / "pyproject.toml").touch()
    for name in ("train", "pair"):
        (checkout / name).mkdir()
    section = {"_target_": "a/b", "split": "train", "ROOT": "pair", "files": ["pair", "no"], "deep": {"at": "./pair"}}
    assert with_found_paths(section, checkout / "training" / "config") == {
        "_target_": "a/b",
        "split": "train",
        "ROOT": str(checkout / "pair"),
        "files": [str(checkout / "pair"), "no"],
        "deep": {"at": str(checkout / "pair")},
    }
