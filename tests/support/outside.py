"""Another package, installed in a folder, that registers something of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.warm import warm_python


def install(folder: Path, name: str, text: str, points: str) -> Path:
    """A folder with a module and the entry points of its distribution, as pip leaves them.

    Args:
        name: of the module.
        points: the text of ``entry_points.txt``.
    """
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    return folder


def python(folder: Path, code: str, *command: str) -> str:
    """What a process that finds the packages of a folder prints, errors included."""
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    asked = command or ("-c", code)
    done = subprocess.run([*warm_python(), *asked], capture_output=True, text=True, env=environment, cwd=folder)
    return done.stdout + done.stderr
