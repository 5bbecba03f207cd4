"""Modules of a checkout that were never installed: found, importable while a run needs them, out of sight afterwards.

A trainer is started from a folder of its repository, which a config does not name. The folders from the config's own
up to the root of its repository are that folder's candidates, the nearest first; paths are looked up there too.

A trainer's repository calls its modules ``data``, ``loss`` or ``train_utils``. Two checkouts in one session, or an
installed package of such a name, must not be taken for one another: what is imported from a checkout belongs to its
room, comes into ``sys.modules`` when the room is entered, and leaves it with the room.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

Stamp = tuple[int, int]  # modification time in ns, bytes
NEVER_HIDDEN = sys.stdlib_module_names | {"conftest", "pytest_overfit"}


@contextlib.contextmanager
def imported(*roots: Path) -> Iterator[None]:
    """Makes the modules of these folders importable for the block, the first folder first.

    Example:
        >>> with imported(Path("training")):                                  # doctest: +SKIP
        ...     import loss

    Inside they come before installed ones, as where a trainer is started. Afterwards ``sys.path``, the environment
    variables and ``sys.modules`` are as before; the next block over the same folders gets the same module objects,
    unless a file has changed.
    """
    with _room(tuple(roots)).entered():
        yield


@functools.cache  # as process-wide as sys.modules: a class keeps its identity from block to block
def _room(roots: tuple[Path, ...]) -> _Room:
    return _Room(roots)


class _Room:
    """What was imported from some folders, kept while they are not on the path."""

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self.roots = roots
        self.modules: dict[str, ModuleType] = {}
        self.stamps: dict[str, Stamp] = {}
        self.paths: list[str] = []  # what the modules themselves have put on the path
        self.variables: dict[str, str] = {}
        self.inside = False

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        if self.inside:
            yield
            return
        path, environment = list(sys.path), dict(os.environ)
        hidden = self._open()
        before = {name.partition(".")[0] for name in sys.modules} - {*self.modules}
        self.inside = True
        try:
            yield
        finally:
            self.inside = False
            self._close(before)
            self.paths = [entry for entry in sys.path if entry not in path and Path(entry) not in self.roots]
            self.variables = {key: value for key, value in os.environ.items() if environment.get(key) != value}
            sys.path[:] = path
            _restore_environment(environment)
            sys.modules.update(hidden)

    def _open(self) -> dict[str, ModuleType]:
        """Puts the room's modules in place; gives back those that were in their place."""
        if any(_stamp(module) != self.stamps[name] for name, module in self.modules.items()):
            self.modules, self.stamps = {}, {}  # an old module beside a new one would not fit it
        importlib.invalidate_caches()
        hidden = {}
        given = [name for name in _regular(self.roots) if name in sys.modules and name not in NEVER_HIDDEN]
        shadowed = {name for name in given if not self._is_mine(name)}
        shadowed |= {name.partition(".")[0] for name in self.modules}
        for name in [name for name in sys.modules if name.partition(".")[0] in shadowed]:
            hidden[name] = sys.modules.pop(name)
        sys.modules.update(self.modules)
        sys.path[:0] = [*map(str, self.roots), *self.paths]
        os.environ.update(self.variables)
        return hidden

    def _close(self, before: set[str]) -> None:
        """Takes everything out of ``sys.modules`` that was imported from the room's folders."""
        tops = {name.partition(".")[0] for name in sys.modules} - before
        mine = {name for name in tops if self._is_mine(name)}
        for name in [name for name in sys.modules if name.partition(".")[0] in mine]:
            module = sys.modules.pop(name)
            self.modules[name] = module
            self.stamps.setdefault(name, _stamp(module))

    def _is_mine(self, name: str) -> bool:
        """Whether the loaded module of a top-level name is the one that these folders give."""
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        places = [file] if file else list(getattr(module, "__path__", ()))
        homes = {root.resolve() for root in self.roots}
        found = [Path(place).resolve() for place in places if isinstance(place, str)]
        return any(_home_of(place, name) in homes for place in found)


def _home_of(place: Path, name: str) -> Path | None:
    """The folder that a top-level module was found in: that of ``name.py``, ``name/__init__.py`` or ``name/``."""
    if place.name.partition(".")[0] == name:
        return place.parent
    return place.parent.parent if place.stem == "__init__" and place.parent.name == name else None


def _regular(roots: Sequence[Path]) -> set[str]:
    """The top-level names that some of the folders give: a folder without ``__init__.py`` loses to a regular module."""
    names: set[str] = set()
    for root in roots:
        with contextlib.suppress(OSError), os.scandir(root) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    names.add(entry.name.removesuffix(".py"))
                elif entry.is_dir() and Path(entry.path, "__init__.py").is_file():
                    names.add(entry.name)
    return names


def _stamp(module: ModuleType) -> Stamp:
    try:
        status = Path(module.__file__ or "").stat()
    except (OSError, TypeError, AttributeError):
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _restore_environment(environment: dict[str, str]) -> None:
    for key in set(os.environ) - set(environment):
        del os.environ[key]
    for key, value in environment.items():
        if os.environ.get(key) != value:
            os.environ[key] = value


REPOSITORY = (".git", "pyproject.toml", "setup.py", "setup.cfg")
FARTHEST = 8  # folders above a config
WITHOUT_REPOSITORY = 3  # folders above a config that lies in no repository
PATH_KEY = re.compile(r"(root|dir|file|path|folder)s?$", re.IGNORECASE)


def folders_above(folder: Path) -> tuple[tuple[Path, ...], bool]:
    """The candidates, and whether the last one is the root of a repository."""
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
    """A section with its relative paths made absolute where they exist: texts with a slash, or under a path's key."""
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
