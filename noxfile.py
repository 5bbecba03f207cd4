"""The versions that the plugin is tested with: ``nox -s tests`` for every pytest, ``nox -l`` for the rest.

Each session installs by the pins of constraints.txt, with the few that differ for it (see constraints/). PyTorch comes
from wherever pip is pointed at; for a CPU build of a version that PyPI has with CUDA only, set PIP_EXTRA_INDEX_URL.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent / "constraints"))
from merged import merged

nox.options.sessions = ["lint", "tests"]
OVERLAYS = {"7.4": ["pytest-7.4"], "8.0": ["pytest-8.0"], "8.4": ["pytest-8.4"], "newest": []}


def install(session: nox.Session, *overlays: str, without: tuple[str, ...] = ()) -> None:
    """Installs the plugin with what its tests need, under the merged pins."""
    pins = [pin for pin in merged(*overlays) if not pin.startswith(without or ("\0",))]
    constraints = Path(session.create_tmp()) / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
    session.install("-c", str(constraints), ".[test]")


@nox.session
@nox.parametrize("pytest", OVERLAYS)
def tests(session: nox.Session, pytest: str) -> None:
    """The whole suite under one version of pytest."""
    install(session, *OVERLAYS[pytest])
    session.run("pytest", "-q", *session.posargs)


@nox.session(python=["3.10", "3.12", "3.13"])
def python(session: nox.Session) -> None:
    """The whole suite on another Python, where a PyTorch for it can be had."""
    install(session, *(["python-3.10"] if session.python == "3.10" else []))
    session.run("pytest", "-q", *session.posargs)


@nox.session(python="3.10")
def oldest_torch(session: nox.Session) -> None:
    """The oldest PyTorch that the package accepts, with the last NumPy that it was built for."""
    install(session, "pytest-7.4", "python-3.10", without=("torch==", "numpy==", "opencv-python==", "OpenEXR=="))
    session.install("torch==2.4.*", "numpy<2.3")
    session.run("pytest", "-q", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and types."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "--strict")
