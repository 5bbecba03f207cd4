"""The plugin costs nothing at pytest start-up: what it imports while it is not used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sessions import HANGS, start_pytest

HEAVY: tuple[str, ...] = ("torch", "numpy", "cv2", "yaml", "omegaconf", "hydra", "tensorboard", "OpenEXR", "PIL")
HEAVY += ("pydantic", "jinja2", "bokeh")
NO_SERVICE = {"GITHUB_ACTIONS": "", "GITHUB_STEP_SUMMARY": ""}

PEEK = """
import pathlib, sys

def pytest_sessionfinish():
    pathlib.Path("imported.txt").write_text(" ".join(name.partition(".")[0] for name in sys.modules), encoding="utf-8")
"""


def imported_by_pytest(folder: Path, *args: str, **environment: str) -> set[str]:
    """Top-level names that ``pytest --co`` has imported at its end, with no other plugin but those given.

    (``-X importtime`` would miss what ``importlib.import_module`` was called with.)
    """
    environment = NO_SERVICE | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment
    session = start_pytest("--co", "-q", *args, folder=folder, tty=None, warm=False, **environment)
    output, _ = session.communicate(timeout=HANGS)
    assert session.returncode == 0, output
    return set((folder / "imported.txt").read_text(encoding="utf-8").split())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """One trivial test, and a YAML file that is none of ours."""
    (tmp_path / "test_own.py").write_text("def test_own(): pass\n", encoding="utf-8")
    (tmp_path / "conftest.py").write_text(PEEK, encoding="utf-8")
    (tmp_path / "data.yaml").write_text("a: 1\n", encoding="utf-8")
    return tmp_path


def test_an_unused_plugin_imports_nothing_but_itself(project: Path) -> None:
    """Against bare pytest: no library at all, heavy or not."""
    bare = imported_by_pytest(project)
    added = imported_by_pytest(project, "-p", "pytest_overfit.plugin") - bare
    assert added == {"pytest_overfit"}


def test_an_unused_plugin_is_light_in_a_job_of_github(project: Path) -> None:
    """There it waits for runs to tell of, and loads no library for them before there is one."""
    service = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(project / "step.md")}
    imported = imported_by_pytest(project, "-p", "pytest_overfit.plugin", **service)
    assert not imported & {*HEAVY}
    assert not (project / "step.md").exists()


def test_modules_are_imported_as_they_are_written(project: Path) -> None:
    """What pytest rewrites is compiled anew in every process that writes no bytecode."""
    look = "import pathlib, pytest_overfit.plugin.requester as r; pathlib.Path('loader').write_text(str(r.__loader__))"
    (project / "test_own.py").write_text(f"{look}\ndef test_own(): pass\n", encoding="utf-8")
    imported_by_pytest(project, "-p", "pytest_overfit.plugin")
    assert "SourceFileLoader" in (project / "loader").read_text(encoding="utf-8")


def test_the_comparison_can_fail(project: Path) -> None:
    """A plugin beside the test that imports NumPy and YAML is seen."""
    (project / "heavy_plugin.py").write_text("import numpy, yaml\n", encoding="utf-8")
    added = imported_by_pytest(project, "-p", "heavy_plugin") - imported_by_pytest(project)
    assert {"numpy", "yaml"} <= added & set(HEAVY)


@pytest.mark.parametrize("statement", ["import pytest_overfit", "import pytest_overfit.plugin"])
def test_importing_the_package_is_light(statement: str) -> None:
    """The entry point's parent package is imported too."""
    code = f"import sys, pytest; {statement}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_all_public_names_resolve() -> None:
    """Lazy names are promises."""
    import pytest_overfit

    for name in pytest_overfit.__all__:
        assert getattr(pytest_overfit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pytest_overfit.nothing
