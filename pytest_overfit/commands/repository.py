"""What a repository is made of, read from its sources alone: nothing of it is imported or run."""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist", "docs", "venv", "env", "outputs", "wandb"}
MOST_FILES, MOST_BYTES = 3000, 1_000_000
LOSS_LIKE = ("loss", "criterion", "metric")
MODULE, LIGHTNING, DATA_MODULE = "Module", "LightningModule", "LightningDataModule"
PRETRAINED, DATASET = "PreTrainedModel", "Dataset"
PYTHON_PATH = re.compile(r"^pythonpath\s*=\s*(\[[^\]]*\]|.*)$", re.MULTILINE)
BASES = (MODULE, LIGHTNING, DATA_MODULE, PRETRAINED, DATASET)


@dataclass(frozen=True)
class Call:
    """How something is called somewhere.

    Args:
        name: what is called, as it stands: ``nn.L1Loss``.
        arguments: as they stand.
        at: ``train.py:12``.
        literal: nothing but plain values is handed over, so that it can stand anywhere.
        literal_keywords: the same of the arguments that have a name, without the others.
    """

    name: str
    arguments: str
    at: str
    literal: bool
    literal_keywords: str


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
                builds=frozenset(_name(call.func).rpartition(".")[2] for call in _calls_in(node)),
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
            found = [
                _call(call, f"{path.relative_to(self.root).as_posix()}:{call.lineno}")
                for path, tree in self.sources.items()
                for call in _calls_in(tree)
                if _name(call.func).rpartition(".")[2] == name
            ]
            self._calls[name] = sorted(found, key=lambda call: not call.literal)
        return self._calls[name]

    def called(self, wanted: Callable[[str], bool], beside: Class) -> list[str]:
        """The wanted names that are called beside a class, below the folder that it is imported from.

        The most frequent come first. Where nothing is called there, those of the whole repository.
        """
        for below in (self.root / self.search_path(beside), self.root):
            trees = [tree for path, tree in self.sources.items() if below in path.parents]
            names = (_name(call.func).rpartition(".")[2] for tree in trees for call in _calls_in(tree))
            if found := [name for name, _ in Counter(filter(wanted, names)).most_common()]:
                return found
        return []

    @cached_property
    def python_path(self) -> tuple[str, ...]:
        """The folders that pytest puts on ``sys.path`` by the ini file."""
        for name in ("pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"):
            path = self.root / name
            said = PYTHON_PATH.search(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
            if said is not None:
                return tuple(Path(word).as_posix() for word in re.findall(r"[^\s\[\]\"',]+", said[1]))
        return ()

    def _module(self, path: Path) -> str:
        """The dotted name below the folder that has to be on ``sys.path``: the first one without ``__init__.py``."""
        parts = [path.stem] if path.stem != "__init__" else []
        folder = path.parent
        while (folder / "__init__.py").is_file() and folder != folder.parent:
            parts.insert(0, folder.name)
            folder = folder.parent
        return ".".join(parts)

    def search_path(self, each: Class) -> Path:
        """The folder that has to be on ``sys.path`` for a class, relative to the root."""
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
        name = _name(base).rpartition(".")[2]
        if name in BASES or name in known:
            return known.get(name, name)
    return ""


def _required(node: ast.ClassDef, defined: Iterable[tuple[Path, ast.ClassDef]]) -> tuple[str, ...]:
    """The arguments without a default of the ``__init__`` that the class has, or has from a class of the repository."""
    own = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if own is None:
        bases = {_name(base).rpartition(".")[2] for base in node.bases}
        above = next((other for _, other in defined if other.name in bases and other is not node), None)
        return () if above is None else _required(above, defined)
    given = own.args
    positional = [*given.posonlyargs, *given.args][1:]
    plain = positional[: len(positional) - len(given.defaults)] if given.defaults else positional
    named = [each for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    return tuple(each.arg for each in (*plain, *named))


def _calls_in(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _name(node: ast.AST) -> str:
    """``torch.nn.Linear`` as it stands; empty for what is no name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = _name(node.value)
        return f"{above}.{node.attr}" if above else node.attr
    return ""


def _call(call: ast.Call, at: str) -> Call:
    plain = not any(isinstance(value, ast.Starred) for value in call.args) and all(map(_is_plain, call.args))
    named = all(keyword.arg is not None and _is_plain(keyword.value) for keyword in call.keywords)
    keywords = ", ".join(f"{each.arg}={ast.unparse(each.value)}" for each in call.keywords)
    arguments = ", ".join(filter(None, (*map(ast.unparse, call.args), keywords)))
    return Call(_name(call.func), arguments, at, plain and named, keywords if named else "")


def _is_plain(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError):
        return False
    return True
