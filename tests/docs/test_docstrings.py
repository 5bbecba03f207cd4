"""The examples of docstrings say what comes out."""

from __future__ import annotations

import doctest
import importlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

PACKAGE = Path(__file__).resolve().parents[2] / "pytest_overfit"
ROOMS = ("api", "cli", "commands", "integrations", "result", "settings", "trainer", "twins", "two_view", "untrusted")
AT_HAND = {"Path": Path, "np": np, "pickle": pickle, "torch": torch}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules_of(room: str) -> list[str]:
    """The dotted names of a room's files."""
    files = sorted(PACKAGE.joinpath(room).rglob("*.py")) or [PACKAGE / f"{room}.py"]
    parts = [path.relative_to(PACKAGE.parent).with_suffix("").parts for path in files]
    return [".".join(each).removesuffix(".__init__") for each in parts]


def wrong(module: object, name: str) -> tuple[list[str], int]:
    """The examples of a module that come out otherwise, and how many there are."""
    tests = doctest.DocTestFinder().find(module, name, extraglobs=AT_HAND)
    results = {each.name: doctest.DocTestRunner(optionflags=FLAGS).run(each, clear_globs=True) for each in tests}
    return [name for name, each in results.items() if each.failed], sum(each.attempted for each in results.values())


@pytest.mark.parametrize("room", ROOMS)
def test_examples_come_out_as_they_say(room: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that need files or objects of others are skipped, and say so."""
    monkeypatch.chdir(tmp_path)
    found = [wrong(importlib.import_module(name), name) for name in modules_of(room)]
    assert [name for names, _ in found for name in names] == []


def test_a_wrong_example_is_seen() -> None:
    """The test above can fail, and finds what there is."""

    class Module:
        __doc__ = ">>> 1 + 1\n3\n"

    assert wrong(Module, "m") == (["m"], 1)
    assert sum(wrong(importlib.import_module(name), name)[1] for name in modules_of("settings")) > 30
