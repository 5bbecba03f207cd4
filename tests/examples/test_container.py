"""The Dockerfile: what can be checked of it without building it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.docs.test_long_description import KEPT
from tests.support.sessions import REPOSITORY

LINES = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
STEPS = [tuple(line.split(" ", 1)) for line in LINES if line and not line.startswith("#")]


def place(kind: str, text: str) -> int:
    """Which step has this text."""
    (found,) = [at for at, (name, rest) in enumerate(STEPS) if name == kind and text in rest]
    return found


def test_a_change_of_the_code_installs_no_requirement_anew() -> None:
    """The requirements are installed before the code is copied, from two files; after it nothing is but the package."""
    first, requirements = place("COPY", "constraints.txt"), place("RUN", "-r requirements.txt")
    code, package = place("COPY", ". ."), place("RUN", "--no-deps .")
    assert first < requirements < code < package
    assert STEPS[first][1] == "pyproject.toml constraints.txt ./"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_the_requirements_are_those_of_the_package(tmp_path: Path) -> None:
    """The line that prints them, against what the package says of itself."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    command = STEPS[place("RUN", "-r requirements.txt")][1].partition(" && ")[0]
    assert shlex.split(command)[0] == "python"
    script = shlex.split(command)[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
    wanted = [Requirement(text) for text in requires("pytest-overfit") or ()]
    extras = [{"extra": name} for name in ("", "pages", "trainer")]
    asked = {each.name for each in wanted if each.marker is None or any(map(each.marker.evaluate, extras))}
    assert {Requirement(line).name for line in done.stdout.split("\n") if line} == asked


def test_it_runs_as_no_root() -> None:
    """And as any other user that a job gives, who has a home and a name."""
    users = [rest for kind, rest in STEPS if kind == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    assert place("USER", users[-1]) < place("ENTRYPOINT", "pytest")
    assert STEPS[place("ENV", "HOME=")][1] == "HOME=/tmp USER=overfit"


def test_the_context_is_what_a_wheel_is_built_from() -> None:
    """No history, tests or reports: `.dockerignore` lets through what the package needs, and what is installed from."""
    rules = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    let_through = {rule[1:] for rule in rules if rule.startswith("!")}
    assert {name.partition("/")[0] if name.startswith("pytest_overfit") else name for name in KEPT} <= let_through
    assert let_through - {"constraints.txt"} == {re.sub(r"^pytest_overfit/.*", "pytest_overfit", name) for name in KEPT}
    assert all((REPOSITORY / name).exists() for name in let_through)
    assert any(
        fnmatch("pytest_overfit/run/__pycache__", rule) for rule in rules if not rule.startswith("!") and rule != "*"
    )
