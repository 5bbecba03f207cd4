"""Where the things are that a config names by half: modules without an installed package, paths relative to somewhere.

A trainer is started from a folder of its repository, which a config does not name. The folders from the config's own
up to the root of its repository are that folder's candidates, the nearest first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = (".git", "pyproject.toml", "setup.py", "setup.cfg")
FARTHEST = 8  # folders above a config
WITHOUT_REPOSITORY = 3  # folders above a config that lies in no repository
PATH_KEY = re.compile(r"(root|dir|file|path|folder)s?$", re.IGNORECASE)


def folders_above(folder: Path) -> tuple[tuple[Path, ...], bool]:
    """The candidates, and whether the last one is the root of a repository.

    Example:
        >>> folders_above(Path("/repos/vggt/training/config"))              # doctest: +SKIP
        ((PosixPath('/repos/vggt/training/config'), PosixPath('/repos/vggt/training'), PosixPath('/repos/vggt')), True)
    """
    candidates = [folder, *folder.parents][: FARTHEST + 1]
    for count, candidate in enumerate(candidates, 1):
        if any((candidate / mark).exists() for mark in REPOSITORY):
            return tuple(candidates[:count]), True
    return tuple(candidates[: WITHOUT_REPOSITORY + 1]), False


def find_import_roots(folder: Path, tree: Any) -> tuple[Path, ...]:
    """The folders whose modules the ``_target_`` paths of a config mean, the nearest first.

    In a repository all folders from the config's up to its root: what a target imports may lie beside it or above it.
    Elsewhere the config's own folder, and those in which the first part of a target is the first to exist.

    Args:
        folder: that of the config.
        tree: the composed config, plain containers.
    """
    candidates, in_repository = folders_above(folder)
    if in_repository:
        return candidates
    roots = [folder]
    for first in {target.partition(".")[0] for target in _targets(tree)}:
        home = next((candidate for candidate in candidates if provides(candidate, first)), None)
        if home is not None and home not in roots:
            roots.append(home)
    return tuple(sorted(roots, key=candidates.index))


def provides(folder: Path, name: str) -> bool:
    """Whether a folder has a module or a package of this name."""
    files = (folder / f"{name}.py", folder / name / "__init__.py")
    return any(os.path.isfile(file) for file in files)  # noqa: PTH113 - Path.is_file raises on names that are too long


def find_path(text: str, folder: Path) -> Path | None:
    """A relative path that exists below the working folder, the config's folder or a candidate above it; else None."""
    try:
        given = Path(text).expanduser()
        if given.is_absolute():
            return given if given.exists() else None
        for base in (Path.cwd(), *folders_above(folder)[0]):
            if (base / given).exists():
                return base / given
    except (OSError, ValueError, RuntimeError):  # a text that is no path at all
        return None
    return None


def with_found_paths(node: Any, folder: Path, key: str = "") -> Any:
    """A section with its relative paths made absolute where they exist: texts with a slash, or under a path's key.

    Example:
        >>> with_found_paths({"ROOT": "pair", "split": "train"}, Path("/repo/config"))    # doctest: +SKIP
        {'ROOT': '/repo/pair', 'split': 'train'}
    """
    if isinstance(node, Mapping):
        return {name: with_found_paths(value, folder, str(name)) for name, value in node.items()}
    if isinstance(node, list):
        return [with_found_paths(value, folder, key) for value in node]
    if not isinstance(node, str) or not node or key.startswith("_") or not ("/" in node or PATH_KEY.search(key)):
        return node
    found = find_path(node, folder)
    return node if found is None else str(found)


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)
