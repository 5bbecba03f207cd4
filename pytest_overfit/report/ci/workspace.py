"""Paths as GitHub reads them: from the root of the repository, whatever folder pytest was started in."""

from __future__ import annotations

import os
from pathlib import Path

WORKSPACE = "GITHUB_WORKSPACE"


def in_workspace(file: str) -> str:
    """A path that pytest tells, from the root of the job's workspace; as it is where there is none, or it is elsewhere.

    pytest tells paths from its rootdir: the working folder, or one of those above it. A file that is not there was
    looked for in the working folder.

    Example:
        >>> in_workspace("tests/test_a.py")  # in the folder svc of a checkout; doctest: +SKIP
        'svc/tests/test_a.py'
    """
    if not (workspace := os.environ.get(WORKSPACE)):
        return file
    try:
        root, here = Path(workspace).resolve(), Path.cwd().resolve()
        for folder in (here, *here.parents):
            whole = (folder / file).resolve()
            if whole.is_relative_to(root) and whole.exists():
                return whole.relative_to(root).as_posix()
        if (missing := (here / file).resolve()).is_relative_to(root):
            return missing.relative_to(root).as_posix()
    except (OSError, ValueError):  # a folder that is gone, a name that no file can have: what was told stands
        pass
    return file


def is_elsewhere(file: str) -> bool:
    """Whether a path is none of the repository's: GitHub shows nothing beside it."""
    return Path(in_workspace(file)).is_absolute()
