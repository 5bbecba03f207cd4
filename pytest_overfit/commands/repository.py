"""What a repository is made of, read from its sources alone: nothing of it is imported or run."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pytest_overfit.commands.syntax import (
    Call,
    Code,
    called_in,
    calls_in,
    common_folders,
    does_something,
    imported,
    name_of,
    without_default,
)

SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist", "docs", "venv", "env", "outputs", "wandb"}
MOST_FILES, MOST_BYTES = 3000, 1_000_000
LOSS_LIKE = ("loss", "criterion", "metric")
MODULE, LIGHTNING, DATA_MODULE = "Module", "LightningModule", "LightningDataModule"
PRETRAINED, DATASET = "PreTrainedModel", "Dataset"
MAKES_MODEL = re.compile("model|net|arch", re.IGNORECASE)
PYTHON_PATH = re.compile(r"^pythonpath\s*=\s*(\[[^\]]*\]|.*)$", re.MULTILINE)
BASES = (MODULE, LIGHTNING, DATA_MODULE, PRETRAINED, DATASET)


@dataclass(frozen=True)
class Class:
    """A class of the repository.

    Args:
        kind: which of ``BASES`` it comes from.
        module: how it is imported.
        required: the arguments of ``__init__`` that have no default.
        builds: the names that its body calls.
        lines: how long it is.
        called: its name in what is written: another one, where two that are used have the same.
    """

    name: str
    kind: str
    module: str
    file: Path
    required: tuple[str, ...]
    builds: frozenset[str]
    lines: int
    called: str


@dataclass(frozen=True)
class Function:
    """A function of the repository that can be imported: a module that runs when it is imported has none.

    Args:
        at: ``train.py:12``.
        arguments: their names.
        required: those without a default; one that has to be named ends in ``=``.
        calls: the names that its body calls.
        returned: what stands behind its last ``return``; None: it returns nothing.
        loops: it trains in a loop of its own.
        called: its name in what is written: another one, where two that are used have the same.
    """

    name: str
    module: str
    file: Path
    at: str
    arguments: tuple[str, ...]
    required: tuple[str, ...]
    calls: frozenset[str]
    returned: ast.expr | None
    loops: bool
    called: str


Found = TypeVar("Found")
Used = TypeVar("Used", Class, Function)


@dataclass
class Repository:
    """The sources below a folder.

    Args:
        aliases: how what a file defines is to be called in what is written, by file and name.
    """

    root: Path
    aliases: Mapping[tuple[Path, str], str] = field(default_factory=dict)
    _calls: dict[str, list[Call]] = field(default_factory=dict)

    @cached_property
    def sources(self) -> Mapping[Path, ast.Module]:
        """Every file that is Python, small enough, and not of an environment or a test."""
        found: dict[Path, ast.Module] = {}
        for path in _files(self.root, ".py"):
            try:
                found[path] = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, ValueError, OSError):  # a template, another language's escape, no permission
                continue
        return found

    @cached_property
    def classes(self) -> list[Class]:
        """The classes that come from one of ``BASES``, also by a class of the repository, in the order of the files."""
        defined = [
            (path, node) for path, tree in self.sources.items() for node in tree.body if isinstance(node, ast.ClassDef)
        ]
        kinds: dict[str, str] = {}
        for _ in range(len(defined)):
            new = {node.name: kind for _, node in defined if node.name not in kinds if (kind := _kind(node, kinds))}
            if not new:
                break
            kinds |= new
        return [
            Class(
                name=node.name,
                kind=kinds[node.name],
                module=self._module(path),
                file=path.relative_to(self.root),
                required=_required(node, defined),
                builds=called_in(node),
                lines=(node.end_lineno or node.lineno) - node.lineno,
                called=self._called(path, node.name),
            )
            for path, node in defined
            if node.name in kinds
        ]

    @property
    def models(self) -> list[Class]:
        """What is trained: modules that are no part of another one; a LightningModule first, then the longest."""
        whole = [each for each in self.classes if each.kind in (MODULE, PRETRAINED, LIGHTNING)]
        parts = {name for each in whole for name in each.builds if name != each.name}
        top = [each for each in whole if each.name not in parts and not each.name.lower().endswith(LOSS_LIKE)]
        return sorted(top, key=lambda each: (each.kind != LIGHTNING, -each.lines))

    @property
    def losses(self) -> list[Class]:
        """The modules that are a loss."""
        return [each for each in self.classes if each.name.lower().endswith(LOSS_LIKE)]

    def of_kind(self, kind: str) -> list[Class]:
        """The classes of one of ``BASES``."""
        return [each for each in self.classes if each.kind == kind]

    def calls_of(self, each: Class | Function) -> list[Call]:
        """Where a class or a function is called, those with plain values first."""
        return [call for call in self.calls(each.name) if self.means(self.root / call.file, each)]

    def means(self, path: Path, each: Class | Function) -> bool:
        """Whether a file means this one by its name: its own, what it imports by that name, else the nearest."""
        everything: list[Class | Function] = [*self.classes, *self.functions, *self.methods]
        named = [other for other in everything if other.name == each.name]
        if len(named) < 2:
            return True
        origins = imported(self.sources[path]).get(each.name.partition(".")[0], ())

        def nearness(other: Class | Function) -> tuple[bool, bool, int]:
            by_import = any(f".{other.module}".endswith(f".{origin}") for origin in origins)
            return self.root / other.file == path, by_import, common_folders(self.root / other.file, path)

        return max(named, key=nearness) == each

    def calls(self, name: str) -> list[Call]:
        """Where something is called by this name, those with plain values first."""
        if name not in self._calls:
            everywhere = calls_in(list(self.sources.items()), self.root)
            found = [call for call in everywhere if call.name.rpartition(".")[2] == name]
            self._calls[name] = sorted(found, key=lambda call: not call.literal)
        return self._calls[name]

    @cached_property
    def functions(self) -> list[Function]:
        """The functions on the first level of a module that does nothing when it is imported."""
        return [
            self._function(path, node)
            for path, tree in self.sources.items()
            if not self.runs(path)
            for node in tree.body
            if isinstance(node, ast.FunctionDef)
        ]

    @cached_property
    def methods(self) -> list[Function]:
        """The methods of the classes that are built of one thing alone, as ``Trainer.train_step``; without ``self``."""
        found, classes = [], {each.name for each in self.classes}
        for path, tree in self.sources.items():
            for node in tree.body if not self.runs(path) else ():
                if isinstance(node, ast.ClassDef) and node.name not in classes and len(_required(node, ())) == 1:
                    each = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name != "__init__"]
                    found += [self._function(path, method, f"{node.name}.") for method in each]
        return found

    def runs(self, path: Path) -> bool:
        """Whether a module does something when it is imported, as a script that trains does."""
        return any(does_something(node) for node in self.sources[path].body)

    def makers(self, each: Class) -> list[Function]:
        """The functions that build a class and give it back, by their names."""
        named = [function for function in self.functions if MAKES_MODEL.search(function.name)]
        made = [function for function in named if each.name in function.calls and function.returned is not None]
        return [function for function in made if self.means(self.root / function.file, each)]

    def around(self, each: Class) -> Iterator[Code]:
        """The code that a class belongs to, the nearest first.

        Functions that build it, files that do or that define it, its folder; where there is one model alone, all that
        is below the folder it is imported from, and all there is.
        """
        made: list[Class | Function] = [each, *self.makers(each)]
        names = {maker.name for maker in made}
        home = self.root / each.file

        def makes(path: Path, node: ast.AST) -> bool:
            called = called_in(node)
            return any(maker.name in called and self.means(path, maker) for maker in made)

        files: Code = [(path, tree) for path, tree in self.sources.items() if path == home or makes(path, tree)]
        parts = [(path, node) for path, tree in files for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        yield [(path, node) for path, node in parts if node.name not in names and makes(path, node)]
        yield files
        yield [(path, tree) for path, tree in self.sources.items() if path.parent == home.parent]
        if len({model.file.parent for model in self.models}) == 1:
            below = self.root / self.search_path(each)
            yield [(path, tree) for path, tree in self.sources.items() if below in path.parents]
            yield list(self.sources.items())

    def nearest(self, each: Class, found: Callable[[Code], list[Found]]) -> list[Found]:
        """What is found in the nearest code around a class that has any."""
        return next(filter(None, map(found, self.around(each))), [])

    def used_in(self, code: Code, candidates: Iterable[Used]) -> list[Used]:
        """The classes or functions that a part of the code calls, or that one of its files defines: those come last."""
        called = [(path, called_in(node)) for path, node in code]
        homes = {path for path, node in code if isinstance(node, ast.Module)}
        listed = list(candidates)

        def is_called(each: Used) -> bool:
            return any(each.name.partition(".")[0] in names and self.means(path, each) for path, names in called)

        by_call = list(filter(is_called, listed))
        return by_call or [each for each in listed if self.root / each.file in homes]

    @cached_property
    def python_path(self) -> tuple[str, ...]:
        """The folders that pytest puts on ``sys.path`` by the ini file."""
        for name in ("pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"):
            path = self.root / name
            said = PYTHON_PATH.search(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
            if said is not None:
                return tuple(Path(word).as_posix() for word in re.findall(r"[^\s\[\]\"',]+", said[1]))
        return ()

    def _function(self, path: Path, node: ast.FunctionDef, of: str = "") -> Function:
        file, given = path.relative_to(self.root), node.args
        loops = [each for each in ast.walk(node) if isinstance(each, (ast.For, ast.While))]
        values = [each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value is not None]
        return Function(
            name=of + node.name,
            module=self._module(path),
            file=file,
            at=f"{file.as_posix()}:{node.lineno}",
            arguments=tuple(each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)),
            required=without_default(given, 1 if of else 0),
            calls=called_in(node),
            returned=values[-1] if values else None,
            loops=any("backward" in called_in(loop) for loop in loops),
            called=self._called(path, of + node.name),
        )

    def _called(self, path: Path, name: str) -> str:
        first, dot, rest = name.partition(".")
        return self.aliases.get((path.relative_to(self.root), first), first) + dot + rest

    def _module(self, path: Path) -> str:
        """The dotted name below the folder that has to be on ``sys.path``: the first one without ``__init__.py``."""
        parts = [path.stem] if path.stem != "__init__" else []
        folder = path.parent
        while (folder / "__init__.py").is_file() and folder != folder.parent:
            parts.insert(0, folder.name)
            folder = folder.parent
        return ".".join(parts)

    def search_path(self, each: Class | Function) -> Path:
        """The folder that has to be on ``sys.path`` for a class or a function, relative to the root."""
        parts = (*each.file.parent.parts, *((each.file.stem,) if each.file.stem != "__init__" else ()))
        return Path(*parts[: len(parts) - len(each.module.split("."))])


def _files(root: Path, suffix: str) -> Iterator[Path]:
    seen = 0
    for folder, folders, names in os.walk(root):
        own = (name for name in folders if name not in SKIPPED and not name.startswith((".", "test")))
        folders[:] = sorted(name for name in own if not Path(folder, name, "pyvenv.cfg").exists())
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(suffix) and not name.startswith("test_") and path.stat().st_size < MOST_BYTES:
                yield path
                seen += 1
                if seen == MOST_FILES:
                    return


def yaml_files(root: Path) -> list[Path]:
    """The YAML files of a repository."""
    return [*_files(root, ".yaml"), *_files(root, ".yml")]


def _kind(node: ast.ClassDef, known: Mapping[str, str]) -> str:
    for base in node.bases:
        name = name_of(base).rpartition(".")[2]
        if name in BASES or name in known:
            return known.get(name, name)
    return ""


def _required(node: ast.ClassDef, defined: Iterable[tuple[Path, ast.ClassDef]]) -> tuple[str, ...]:
    """The arguments without a default of the ``__init__`` that the class has, or has from a class of the repository."""
    own = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if own is None:
        bases = {name_of(base).rpartition(".")[2] for base in node.bases}
        above = next((other for _, other in defined if other.name in bases and other is not node), None)
        return () if above is None else _required(above, defined)
    return tuple(name.rstrip("=") for name in without_default(own.args, 1))
