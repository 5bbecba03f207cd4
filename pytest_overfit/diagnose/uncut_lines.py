"""A line that takes numbers out of the graph, as it reads with the tensors themselves. No torch."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from pytest_overfit.diagnose.source_lines import Edit, Source, called

NUMBERS = ("item", "tolist", "float")
CUTS = (*NUMBERS, "detach", "data")
REMADE = ("tensor", "as_tensor", "new_tensor")
OUTSIDE = ("np", "numpy", "math", "statistics")
SEVERAL = (ast.List, ast.Tuple, ast.ListComp, ast.GeneratorExp)
STATEMENTS = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Expr)


def cut_free(by: str = "") -> Edit:
    """A statement with tensors in place of every number, copy or cut that is made of them.

    Args:
        by: what cuts, ``.item()``: what cuts in another way stays; empty: whatever does.
    """
    cuts = _kinds(by)

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, STATEMENTS) or node.value is None:
            return None
        said = _Uncut(source, cuts).without(node.value)
        return None if said is None else (node.value, said)

    return edit


def made_again(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
    """A tensor in place of one that is made of its number."""
    if called(node) not in (*REMADE, "float") or not isinstance(node, ast.Call) or not node.args:
        return None
    uncut = _Uncut(source, CUTS)
    said = uncut.without(node) if uncut.without(node.args[0]) is not None else None
    return None if said is None else (node, said)


def made_of(place: str) -> Edit:
    """A tensor in place of one that is made, in the same function, of a number that is taken at ``file.py:12``."""
    name, _, line = place.rpartition(":")

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, ast.FunctionDef) or source.path.replace("\\", "/").rpartition("/")[2] != name:
            return None
        held = _held(node)
        for each in ast.walk(node):
            read = {child.id for child in ast.walk(each) if isinstance(child, ast.Name)}
            if called(each) in REMADE and any(held[name].lineno == int(line) for name in read & held.keys()):
                said = _Uncut(source, CUTS, held).without(each)
                return None if said is None else (each, said)
        return None

    return edit


def leaves_torch(place: str) -> Edit:
    """A call of another library that takes what is set at ``file.py:12``, for whether there is one."""
    name, _, line = place.rpartition(":")

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, ast.FunctionDef) or source.path.replace("\\", "/").rpartition("/")[2] != name:
            return None
        taken = {key for key, value in _held(node).items() if value.lineno == int(line)}
        calls = (each for each in ast.walk(node) if _leaves_torch(each))
        found = (each for each in calls if any(isinstance(c, ast.Name) and c.id in taken for c in ast.walk(each)))
        return next(((each, "torch") for each in found), None)

    return edit


def _kinds(by: str) -> tuple[str, ...]:
    named = by.strip(".()")
    if named in NUMBERS or named in REMADE:
        return NUMBERS
    return (named,) if named in CUTS else CUTS


def _leaves_torch(node: ast.AST) -> bool:
    """Whether a function is called that wants numbers, and takes no tensor of a graph."""
    owner = node.func.value if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None
    return isinstance(owner, ast.Name) and owner.id in OUTSIDE


def _held(function: ast.AST) -> dict[str, ast.expr]:
    """What the variables of a function are set to, of those that are set once."""
    found: dict[str, list[ast.expr | None]] = {}
    for each in ast.walk(function):
        if isinstance(each, (ast.Assign, ast.AugAssign)):
            target = each.targets[0] if isinstance(each, ast.Assign) else each.target
            if isinstance(target, ast.Name):
                found.setdefault(target.id, []).append(each.value if isinstance(each, ast.Assign) else None)
    return {name: values[0] for name, values in found.items() if len(values) == 1 and values[0] is not None}


@dataclass(frozen=True)
class _Uncut:
    """Expressions of a file without such cuts; a variable of ``held`` is what it is set to."""

    source: Source
    cuts: Collection[str]
    held: Mapping[str, ast.expr] = field(default_factory=dict)

    def without(self, node: ast.AST) -> str | None:
        """The text of an expression without its cuts; None where it has none, or lies over several lines."""
        if isinstance(node, ast.Name):
            return _Uncut(self.source, self.cuts).without(self.held[node.id]) if node.id in self.held else None
        taken = self._taken(node)
        if taken is None:
            return None if _leaves_torch(node) else self._spliced(node)
        kept, remade = self.without(taken), called(node) in REMADE
        if kept is None and (remade or called(taken) in REMADE):  # of numbers, and of nothing else
            return None
        said = kept or self.source.segment(taken)
        several = isinstance(self.held.get(taken.id) if isinstance(taken, ast.Name) else taken, SEVERAL)
        return f"torch.stack({said})" if remade and several else said

    def _operand(self, node: ast.expr) -> str | None:
        """An operand without its cuts, in brackets where it would fall apart elsewhere."""
        said = self.without(node)
        if said is None:
            return None
        falls_apart = isinstance(ast.parse(said, mode="eval").body, (ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Compare))
        return f"({said})" if falls_apart else said

    def _taken(self, node: ast.AST) -> ast.expr | None:
        """What a number, a copy or a cut is made of; None of anything else."""
        if isinstance(node, ast.Attribute):
            return node.value if node.attr in self.cuts and isinstance(node.ctx, ast.Load) else None
        if not isinstance(node, ast.Call):
            return None
        if called(node) in REMADE or (isinstance(node.func, ast.Name) and node.func.id in {"float", *self.cuts}):
            return next(iter(node.args), None)
        if not isinstance(node.func, ast.Attribute):
            return None
        inner = node.func.value
        again = node.func.attr == "requires_grad_" and called(inner) in REMADE
        return inner if again or node.func.attr in self.cuts else None

    def _spliced(self, node: ast.AST) -> str | None:
        """The text of a node of one line with its outermost cuts exchanged."""
        changes = list(self._changes(node))
        if not changes or not isinstance(node, ast.expr) or node.lineno != node.end_lineno:
            return None
        text, start = self.source.segment(node).encode(), node.col_offset
        for part, said in sorted(changes, key=lambda each: each[0].col_offset, reverse=True):
            text = text[: part.col_offset - start] + said.encode() + text[(part.end_col_offset or 0) - start :]
        return text.decode()

    def _changes(self, node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
        for child in ast.iter_child_nodes(node):
            whole = isinstance(child, ast.expr) and (isinstance(child, ast.Name) or self._taken(child) is not None)
            said = self._operand(child) if whole and isinstance(child, ast.expr) else None
            if said is not None and isinstance(child, ast.expr):
                yield child, said
            elif not whole:
                yield from self._changes(child)
