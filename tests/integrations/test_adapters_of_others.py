"""An adapter that another package registers: an object of its library is handed over as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.outside import install, python

LIBRARY = """
import contextlib
from dataclasses import replace

import torch


class Learner:
    '''What a library calls a model, its data and its loss, together.'''

    def __init__(self):
        torch.manual_seed(0)
        self.net = torch.nn.Linear(2, 1)
        self.data = torch.ones(4, 2), torch.full((4, 1), 2.0)


@contextlib.contextmanager
def prepared(subject, settings):
    learner = subject.model
    optimizer = torch.optim.SGD(learner.net.parameters(), lr=0.1)
    given = {"data": learner.data, "loss": torch.nn.MSELoss(), "optimizer": optimizer, "notes": ("a learner",)}
    yield replace(subject, model=learner.net, **given)


def brings_data(learner):
    return True


def module_of(learner):
    return learner.net
"""
POINTS = "[pytest_overfit.adapters]\ntheir_library.Learner = their_library\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with an installed library that brings its adapter."""
    return install(tmp_path, "their_library", LIBRARY, POINTS)


def test_a_call_takes_its_object(outside: Path) -> None:
    """The adapter says what is trained; the object needs no data beside it."""
    code = """
from pytest_overfit import run_overfit
from their_library import Learner

result = run_overfit(Learner(), objective=0.5, max_steps=60, diagnose=False)
print(result.passed, result.record.notes)
"""
    assert "True ('a learner'" in python(outside, code)


def test_a_test_takes_it(outside: Path) -> None:
    """So does the fixture."""
    test = """
from their_library import Learner


def test_learner(overfit):
    assert "a learner" in overfit(Learner(), objective=0.5, max_steps=60, diagnose=False).notes
"""
    (outside / "test_learner.py").write_text(test, encoding="utf-8")
    assert "1 passed" in python(outside, "", "-m", "pytest", "-p", "no:cacheprovider", "test_learner.py")


def test_without_the_entry_point_it_is_a_stranger(tmp_path: Path) -> None:
    """The tests above can fail."""
    code = """
from pytest_overfit import run_overfit
from their_library import Learner

run_overfit(Learner(), objective=0.5, max_steps=60)
"""
    assert "OverfitError" in python(install(tmp_path, "their_library", LIBRARY, ""), code)
