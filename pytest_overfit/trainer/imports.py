"""Modules of a checkout that were never installed: importable while a run needs them, out of sight afterwards.

A trainer's repository calls its modules ``data``, ``loss`` or ``train_utils``. Two checkouts in one session, or an
installed package of such a name, must not be taken for one another: what is imported from a checkout belongs to its
room, comes into ``sys.modules`` when the room is entered, and leaves it with the room.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

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
        shadowed = {name for name in _regular(self.roots) if self._comes_from_elsewhere(name)}
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

    def _comes_from_elsewhere(self, name: str) -> bool:
        return name in sys.modules and name not in NEVER_HIDDEN and not self._is_mine(name)

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
