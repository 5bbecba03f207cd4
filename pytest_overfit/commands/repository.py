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

from pytest_overfit.commands.syntax import Call, Code, called_in, calls_in, does_something, name_of, without_default

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
    """

    name: str
    kind: str
    module: str
    file: Path
    required: tuple[str, ...]
    builds: frozenset[str]
    lines: int


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


Found = TypeVar("Found")
Used = TypeVar("Used", Class, Function)


@dataclass
class Repository:
    """The sources below a folder."""

    root: Path
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
    def classes(self) -> Mapping[str, Class]:
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
        return {
            node.name: Class(
                name=node.name,
                kind=kinds[node.name],
                module=self._module(path),
                file=path.relative_to(self.root),
                required=_required(node, defined),
                builds=called_in(node),
                lines=(node.end_lineno or node.lineno) - node.lineno,
            )
            for path, node in defined
            if node.name in kinds
        }

    @property
    def models(self) -> list[Class]:
        """What is trained: modules that are no part of another one; a LightningModule first, then the longest."""
        whole = [each for each in self.classes.values() if each.kind in (MODULE, PRETRAINED, LIGHTNING)]
        parts = {name for each in whole for name in each.builds if name != each.name}
        top = [each for each in whole if each.name not in parts and not each.name.lower().endswith(LOSS_LIKE)]
        return sorted(top, key=lambda each: (each.kind != LIGHTNING, -each.lines))

    @property
    def losses(self) -> Mapping[str, Class]:
        """The modules that are a loss, by name."""
        return {name: each for name, each in self.classes.items() if name.lower().endswith(LOSS_LIKE)}

    def of_kind(self, kind: str) -> list[Class]:
        """The classes of one of ``BASES``."""
        return [each for each in self.classes.values() if each.kind == kind]

    def calls(self, name: str) -> list[Call]:
        """Where something is called by this name, those with plain values first."""
        if name not in self._calls:
            everywhere = calls_in(list(self.sources.items()), self.root)
            found = [call for call in everywhere if call.name.rpartition(".")[2] == name]
            self._calls[name] = sorted(found, key=lambda call: not call.literal)
        return self._calls[name]

    @cached_property
    def functions(self) -> Mapping[str, Function]:
        """The functions on the first level of a module that does nothing when it is imported, by name."""
        return {
            node.name: self._function(path, node)
            for path, tree in self.sources.items()
            if not self.runs(path)
            for node in tree.body
            if isinstance(node, ast.FunctionDef)
        }

    @cached_property
    def methods(self) -> list[Function]:
        """The methods of the classes that are built of one thing alone, as ``Trainer.train_step``; without ``self``."""
        found = []
        for path, tree in self.sources.items():
            for node in tree.body if not self.runs(path) else ():
                if isinstance(node, ast.ClassDef) and node.name not in self.classes and len(_required(node, ())) == 1:
                    each = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name != "__init__"]
                    found += [self._function(path, method, f"{node.name}.") for method in each]
        return found

    def runs(self, path: Path) -> bool:
        """Whether a module does something when it is imported, as a script that trains does."""
        return any(does_something(node) for node in self.sources[path].body)

    def makers(self, each: Class) -> list[Function]:
        """The functions that build a class and give it back, by their names."""
        named = [function for name, function in self.functions.items() if MAKES_MODEL.search(name)]
        return [function for function in named if each.name in function.calls and function.returned is not None]

    def around(self, each: Class) -> Iterator[Code]:
        """The code that a class belongs to, the nearest first.

        Functions that build it, files that do or that define it, its folder; where there is one model alone, all that
        is below the folder it is imported from, and all there is.
        """
        names = {each.name, *(maker.name for maker in self.makers(each))}
        home = self.root / each.file
        files: Code = [(path, tree) for path, tree in self.sources.items() if path == home or names & called_in(tree)]
        parts = [(path, node) for path, tree in files for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        yield [(path, node) for path, node in parts if node.name not in names and names & called_in(node)]
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
        called = frozenset().union(*(called_in(node) for _, node in code))
        homes = {path for path, node in code if isinstance(node, ast.Module)}
        listed = list(candidates)
        by_call = [each for each in listed if each.name.partition(".")[0] in called]
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
        )

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
