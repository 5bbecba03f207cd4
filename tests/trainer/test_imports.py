"""Modules of a checkout: importable in the block, out of sight afterwards, the same ones in the next."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from pytest_overfit.trainer.imports import imported


def write(folder: Path, **modules: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def load(name: str) -> Any:
    return importlib.import_module(name)


def test_a_block_leaves_neither_paths_nor_modules_nor_variables(tmp_path: Path) -> None:
    """What the modules themselves put on the path or into the environment goes, too."""
    text = "import os, sys\nsys.path.append('/nowhere')\nos.environ['OF_A_CHECKOUT'] = '1'\nvalue = 1\n"
    root = write(tmp_path, checkout_loss=text)
    before = list(sys.path)
    with imported(root):
        assert load("checkout_loss").value == 1
    assert sys.path == before
    assert "checkout_loss" not in sys.modules
    assert "OF_A_CHECKOUT" not in os.environ
    with imported(root):
        assert os.environ["OF_A_CHECKOUT"] == "1"
        assert "/nowhere" in sys.path


def test_the_next_block_gets_the_same_modules(tmp_path: Path) -> None:
    """A class keeps its identity; a file that has changed is read again."""
    root = write(tmp_path, checkout_model="class Net: pass\n")
    with imported(root):
        first = load("checkout_model").Net
    with imported(root), imported(root):
        assert load("checkout_model").Net is first
    write(tmp_path, checkout_model="class Net: pass\nmore = 1\n")
    with imported(root):
        assert load("checkout_model").more == 1


def test_two_checkouts_do_not_mix(tmp_path: Path) -> None:
    """Each block sees its own, packages and their submodules included."""
    for name in ("a", "b"):
        write(tmp_path / name / "checkout_data", __init__="", pairs=f"name = {name!r}\n")
    for name in ("a", "b", "a"):
        with imported(tmp_path / name):
            assert load("checkout_data.pairs").name == name


def test_a_loaded_module_of_that_name_is_put_back(tmp_path: Path, monkeypatch: Any) -> None:
    """An installed one, say; inside the block the checkout's comes first."""
    root = write(tmp_path / "checkout", checkout_data="here = 'checkout'\n")
    monkeypatch.syspath_prepend(write(tmp_path / "installed", checkout_data="here = 'installed'\n"))
    installed = load("checkout_data")
    with imported(root):
        assert load("checkout_data").here == "checkout"
    assert sys.modules["checkout_data"] is installed
    del sys.modules["checkout_data"]


def test_a_module_that_the_process_had_from_there_stays(tmp_path: Path, monkeypatch: Any) -> None:
    """A test that imports the same file shares its classes with the run, and keeps them."""
    root = write(tmp_path, checkout_shared="")
    monkeypatch.syspath_prepend(root)
    own = load("checkout_shared")
    with imported(root):
        assert load("checkout_shared") is own
    assert sys.modules.pop("checkout_shared") is own


def test_nearer_folders_come_first(tmp_path: Path) -> None:
    """As they are given."""
    near, far = write(tmp_path / "near", checkout_x="n = 1\n"), write(tmp_path / "far", checkout_x="n = 2\n")
    with imported(near, far):
        assert load("checkout_x").n == 1


def test_the_standard_library_is_never_hidden(tmp_path: Path) -> None:
    """A checkout with a file called logging.py cannot take it from the process."""
    import logging

    with imported(write(tmp_path, logging="")):
        assert sys.modules["logging"] is logging
