"""The command that repeats a run has what the run was made with, and nothing of the session's other runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_overfit.plugin.provenance import command_of

GIVEN = ("--overfit-config", "a.yaml", "--overfit-set=optim.lr=1", "--overfit-set", "overfit.budget.max_steps=9", "-q")


@pytest.mark.parametrize(
    ("title", "of_config", "command"),
    [
        ("t.py::test_a", False, "pytest t.py::test_a --overfit-set overfit.budget.max_steps=9"),
        (
            "t.py::test_a",
            True,
            "pytest t.py::test_a --overfit-config a.yaml --overfit-set=optim.lr=1 "
            "--overfit-set overfit.budget.max_steps=9",
        ),
        ("a.yaml", True, "pytest a.yaml --overfit-set=optim.lr=1 --overfit-set overfit.budget.max_steps=9"),
    ],
)
def test_a_command_names_a_config_where_the_run_is_under_one(title: str, of_config: bool, command: str) -> None:
    """And keys of it there alone; what is below ``overfit.`` is for every run."""
    session: Any = SimpleNamespace(arguments=GIVEN, root=Path("/r"), folder=Path("/r"), hide=lambda text: text)
    assert command_of(session, title, of_config=of_config) == command
