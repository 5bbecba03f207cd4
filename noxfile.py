"""The versions that the plugin is tested with: ``nox -s tests`` for every pytest, ``nox -l`` for the rest.

Each session installs by the pins of constraints.txt, with the few that differ for it (see constraints/). PyTorch comes
from wherever pip is pointed at. For some versions PyPI has nothing but several GB of CUDA there: sessions that would
take those are skipped until PIP_EXTRA_INDEX_URL names an index of CPU builds.
"""

from __future__ import annotations

import os
import platform
import sys
from datetime import date
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent / "constraints"))
from merged import merged

nox.options.sessions = ["lint", "tests"]
OVERLAYS = {"7.4": ["pytest-7.4"], "8.0": ["pytest-8.0"], "8.4": ["pytest-8.4"], "newest": []}
PYTHONS = {"3.10": ["python-3.10"], "3.12": [], "3.13": []}
TORCH_FREE = (Path(__file__).parent / "tests" / "torch_free.txt").read_text(encoding="utf-8").split()
WITH_TORCH = ("torch", "accelerate", "pytorch-lightning")  # requirements that need it, or are it


def install(session: nox.Session, *requirements: str, overlays: list[str], unpinned: tuple[str, ...] = ()) -> None:
    """Installs by the merged pins, in one call: pip takes each package once."""
    pins = [pin for pin in merged(*overlays) if pin.partition("==")[0] not in unpinned]
    constraints = Path(session.create_tmp()) / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
    session.install("-c", str(constraints), *requirements)


def skip_without_cpu_torch(session: nox.Session) -> None:
    """PyPI's builds of PyTorch for Linux on x86-64 bring CUDA; those of other machines do not."""
    if (sys.platform, platform.machine()) == ("linux", "x86_64") and "PIP_EXTRA_INDEX_URL" not in os.environ:
        session.skip("set PIP_EXTRA_INDEX_URL to an index of PyTorch's CPU builds")


@nox.session
@nox.parametrize("pytest", [nox.param(name, id=name) for name in OVERLAYS])
def tests(session: nox.Session, pytest: str) -> None:
    """The whole suite under one version of pytest."""
    install(session, ".[test]", overlays=OVERLAYS[pytest])
    session.run("pytest", "-q", *session.posargs)


@nox.session(python=list(PYTHONS))
def python(session: nox.Session) -> None:
    """The whole suite on another Python."""
    skip_without_cpu_torch(session)
    install(session, ".[test]", overlays=PYTHONS[str(session.python)])
    session.run("pytest", "-q", *session.posargs)


@nox.session(python=list(PYTHONS))
def without_torch(session: nox.Session) -> None:
    """What needs no PyTorch, on a Python that none can be had for: the configs, the pair and the judging."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    install(
        session,
        *(need for need in needs if not need.startswith(WITH_TORCH)),
        overlays=PYTHONS[str(session.python)],
    )
    session.install("--no-deps", ".")
    session.run("python", "-m", "compileall", "-q", "pytest_overfit", "tests", "benchmarks")
    session.run("pytest", "-q", *(session.posargs or TORCH_FREE))


@nox.session(python="3.10")
def oldest_torch(session: nox.Session) -> None:
    """The oldest PyTorch that the package accepts, under the oldest pytest, on the oldest Python."""
    skip_without_cpu_torch(session)
    install(session, ".[test]", "torch==2.4.*", overlays=["pytest-7.4", "python-3.10"], unpinned=("torch",))
    session.run("pytest", "-q", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and types."""
    install(session, ".[test]", overlays=[])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "--strict")


@nox.session
def nightly(session: nox.Session) -> None:
    """What takes too long for every change: the whole gallery, its own check, and the suite as nobody has run it.

    Under the lowest pytest, and from other random numbers than it was written with: those of the day.
    """
    session.notify("tests(7.4)")
    install(session, ".[test]", overlays=[])
    session.run("python", "-m", "benchmarks.gallery", "--seeds", "3")
    session.run("python", "-m", "benchmarks.gallery", "--seeds", "3", "--verify")
    session.run("pytest", "-q", "-n", "auto", env={"TESTS_SEED": str(date.today().toordinal())})
