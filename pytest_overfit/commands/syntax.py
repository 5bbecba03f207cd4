"""What is called in a source, with what, and whether importing it does something."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

HARMLESS = {"simplefilter", "filterwarnings", "basicConfig", "manual_seed", "append", "insert", "use", "setLevel"}
RUNS = {"parse_args", "parse_known_args", "input", "main", "train", "run", "fit"}
Code = list[tuple[Path, ast.AST]]  # files, or parts of them


@dataclass(frozen=True)
class Call:
    """How something is called somewhere.

    Args:
        name: what is called, as it stands: ``nn.L1Loss``.
        arguments: as they stand.
        at: ``train.py:12``.
        literal: nothing but plain values is handed over, so that it can stand anywhere.
        rest: what follows the first argument, where that is plain values; None: it is not.
        collate: what a loader is given as ``collate_fn``, where that is a name.
    """

    name: str
    arguments: str
    at: str
    literal: bool
    rest: str | None
    collate: str = ""

    @property
    def file(self) -> Path:
        """The file that it stands in."""
        return Path(self.at.rpartition(":")[0])


def without_default(given: ast.arguments, first: int) -> tuple[str, ...]:
    """The arguments without a default from the first that counts; one that has to be named ends in ``=``."""
    positional = [*given.posonlyargs, *given.args]
    plain = positional[first : len(positional) - len(given.defaults)]
    named = [each for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    return (*(each.arg for each in plain), *(f"{each.arg}=" for each in named))


def does_something(node: ast.stmt) -> bool:
    """Whether a statement of a module's first level is more than a definition."""
    if isinstance(node, ast.If):
        return "__main__" not in ast.unparse(node.test) and any(map(does_something, (*node.body, *node.orelse)))
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant) and bool(called_in(node) - HARMLESS)
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return bool(called_in(node) & RUNS)
    return isinstance(node, (ast.For, ast.While, ast.With, ast.Raise, ast.Assert))


def calls_in(code: Code, root: Path) -> list[Call]:
    """The calls in a part of the code, in its order."""
    return [
        _call(call, f"{path.relative_to(root).as_posix()}:{call.lineno}")
        for path, node in code
        for call in _calls_in(node)
    ]


def names_called(code: Code, wanted: Callable[[str], bool]) -> list[str]:
    """The wanted names that are called in a part of the code, the most frequent first."""
    names = (name_of(call.func).rpartition(".")[2] for _, node in code for call in _calls_in(node))
    return [name for name, _ in Counter(filter(wanted, names)).most_common()]


def called_in(tree: ast.AST) -> frozenset[str]:
    """The names that are called somewhere in a tree, the last part of each."""
    return frozenset(name_of(call.func).rpartition(".")[2] for call in _calls_in(tree))


def imported(tree: ast.AST) -> dict[str, list[str]]:
    """The modules that a name is imported from, without the dots of a relative one."""
    found = dict[str, list[str]]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                found.setdefault(each.name, []).append(node.module)
    return found


def common_folders(one: Path, other: Path) -> int:
    """How many folders two files have in common."""
    pairs = zip(one.parent.parts, other.parent.parts, strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _calls_in(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def name_of(node: ast.AST) -> str:
    """``torch.nn.Linear`` as it stands; empty for what is no name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = name_of(node.value)
        return f"{above}.{node.attr}" if above else node.attr
    return ""


def _call(call: ast.Call, at: str) -> Call:
    plain = not any(isinstance(value, ast.Starred) for value in call.args) and all(map(_is_plain, call.args))
    named = all(keyword.arg is not None and _is_plain(keyword.value) for keyword in call.keywords)
    keywords = [f"{each.arg}={ast.unparse(each.value)}" for each in call.keywords]
    texts = list(map(ast.unparse, call.args))
    rest = ", ".join([*texts[1:], *keywords]) if named and all(map(_is_plain, call.args[1:])) else None
    collate = next((name_of(each.value) for each in call.keywords if each.arg == "collate_fn"), "")
    return Call(name_of(call.func), ", ".join([*texts, *keywords]), at, plain and named, rest, collate)


def _is_plain(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError):
        return False
    return True
