"""A line of the user's own as it should read: one place of their sources, and what stands there instead. No torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

Edit = Callable[[ast.AST, "Source"], tuple[ast.AST, str] | None]  # of a node: what is replaced, and by what
FUNCTIONAL = ("F", "torch", "functional", "nn.functional", "torch.nn.functional")
DROPPING = ("Transformer", "TransformerEncoderLayer", "TransformerDecoderLayer")  # of torch, a tenth by default
OPERATORS = {"add": ast.Add, "mul": ast.Mult, "div": ast.Div, "truediv": ast.Div}  # all else is a difference
ATOMS = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.Constant, ast.Tuple, ast.List)


@dataclass(frozen=True)
class Source:
    """A file of the user's: its path as it is shown, its text, and the lines (first, last) of what takes part."""

    path: str
    text: str
    near: tuple[tuple[int, int], ...] = ()

    def segment(self, node: ast.AST) -> str:
        """The text of a node."""
        return ast.get_source_segment(self.text, node) or ""

    def operand(self, node: ast.AST) -> str:
        """The text of a node, in brackets where it would fall apart elsewhere."""
        return self.segment(node) if isinstance(node, ATOMS) else f"({self.segment(node)})"

    def is_near(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self.near)


def line_to_change(sources: Sequence[Source], edit: Edit, *, at: str = "") -> str:
    """``file.py:12: the line as it should read``; empty where no place, or more than one, is meant.

    Example:
        >>> line_to_change([Source("a.py", "opt = Adam(p, lr=1e-6)\\n")], keyword("lr", 1e-6, "0.01"))
        'a.py:1: opt = Adam(p, lr=0.01)'

    Args:
        at: ``file.py:12``, the one line that is looked at.
    """
    found: dict[tuple[str, int], str] = {}
    close = set()
    for source in sources:
        for number, line in _edited(source, edit):
            place = source.path, number
            if not at or f"{source.path.replace(chr(92), '/').rpartition('/')[2]}:{number}" == at:
                found.setdefault(place, line)
                close |= {place} if source.is_near(number) else set()
    places = close or set(found)
    if len(places) != 1:
        return ""
    place = places.pop()
    return f"{place[0]}:{place[1]}: {found[place].strip()}"


def _edited(source: Source, edit: Edit) -> Iterator[tuple[int, str]]:
    """Every line that an edit changes, the outermost change of it first."""
    try:
        tree = ast.parse(source.text)
    except (SyntaxError, ValueError):
        return
    lines = source.text.splitlines()
    for node in ast.walk(tree):
        change = edit(node, source)
        if change is None:
            continue
        old, new = change
        if not isinstance(old, (ast.expr, ast.stmt, ast.keyword)) or old.lineno != old.end_lineno:
            continue
        line = lines[old.lineno - 1].encode()
        changed = (line[: old.col_offset] + new.encode() + line[old.end_col_offset :]).decode()
        if changed != lines[old.lineno - 1]:
            yield old.lineno, changed


def keyword(name: str, was: float | None, now: str, *, calls: Collection[str] = ()) -> Edit:
    """An argument of this name, an entry of a mapping, or a variable; ``was``: its value, None for whatever it is.

    Args:
        calls: functions that take it as their second argument.
    """

    def same(node: ast.AST) -> bool:
        value = node.value if isinstance(node, ast.Constant) else None
        if was is None:
            return True
        return isinstance(value, (int, float)) and abs(value - was) <= 1e-3 * abs(was)

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if isinstance(node, ast.keyword) and node.arg == name and same(node.value):
            return node.value, now
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name and same(value):
                    return value, now
        if isinstance(node, ast.Call) and called(node) in calls and len(node.args) == 2 and same(node.args[1]):
            return node.args[1], now
        names = (name, *(["learning_rate"] if name == "lr" else []))
        held = _held(node) if was is not None else ()
        return next(((value, now) for said, value in held if said.lower() in names and same(value)), None)

    return edit


def _held(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """What a variable, a field or an attribute is set to, and an argument by default, by name."""
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, (ast.Name, ast.Attribute)):
            yield (target.id if isinstance(target, ast.Name) else target.attr), node.value
    if isinstance(node, ast.arguments):
        places = [*node.posonlyargs, *node.args]
        yield from zip((each.arg for each in places[len(places) - len(node.defaults) :]), node.defaults, strict=True)
        named = zip(node.kwonlyargs, node.kw_defaults, strict=True)
        yield from ((each.arg, value) for each, value in named if value is not None)


def extended(calls: Collection[str], name: str, value: str) -> Edit:
    """A call of one of these functions with an argument of this name that it does not have yet."""

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        given = {each.arg for each in node.keywords} if isinstance(node, ast.Call) else set()
        if called(node) not in calls or given & {name, None}:
            return None
        said = source.segment(node)[:-1].rstrip(", ")
        return node, f"{said}{'' if said.endswith('(') else ', '}{name}={value})"

    return edit


def respelt(names: Mapping[str, str]) -> Edit:
    """A call with its keywords under the names that are meant."""

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, ast.Call) or not any(each.arg in names for each in node.keywords):
            return None
        text = source.segment(node)
        for name, meant in names.items():
            text = re.sub(rf"\b{re.escape(name)}(?=\s*=[^=])", meant, text)
        return node, text

    return edit


def called(node: ast.AST) -> str:
    """The name that a call calls, without what stands before it; empty of anything else."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def without(*names: str) -> Edit:
    """Calls of these functions, methods and modules, and attributes of these names, with what they are given alone."""
    folded = {name.lower().replace("_", "") for name in names}

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if isinstance(node, ast.Attribute) and node.attr in names and isinstance(node.ctx, ast.Load):
            return node, source.operand(node.value)
        name = called(node)
        if not isinstance(node, ast.Call) or name.lower().replace("_", "") not in folded:
            return None
        if name[:1].isupper():
            return node, f"{source.segment(node.func).rpartition('.')[0] or 'torch.nn'}.Identity()"
        inner = _given(node, source)
        return None if inner is None else (node, source.operand(inner))

    return edit


def while_training(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
    """A dropout as a function that goes by the mode of its module."""
    if not isinstance(node, ast.Call) or called(node) != "dropout" or not isinstance(node.func, ast.Attribute):
        return None
    told = len(node.args) > 2 or any(each.arg == "training" for each in node.keywords)
    functional = source.segment(node.func.value).rpartition(".")[2] in ("F", "functional")
    return (node, f"{source.segment(node)[:-1]}, training=self.training)") if functional and not told else None


def axes_exchanged(how: str) -> Edit:
    """A reshape of scores as the exchange of axes that a loss wants, ``movedim(-1, 1)``."""

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if called(node) not in ("reshape", "view") or not isinstance(node, ast.Call):
            return None
        owner = _given(node, source)
        return None if owner is None else (node, f"{source.operand(owner)}.{how}")

    return edit


def _given(call: ast.Call, source: Source) -> ast.expr | None:
    """What a function of torch, or a method of a tensor, is called with first."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    of_tensor = owner is not None and source.segment(owner) not in FUNCTIONAL
    return owner if of_tensor else next(iter(call.args), None)


def inactive(name: str) -> Edit:
    """Without this activation; the exp of a log_softmax is a softmax."""
    alone, logs = without(name), without("log_softmax")

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if name in ("softmax", "exp") and isinstance(node, ast.Call) and called(node) == "exp":
            inner = _given(node, source)
            if inner is not None and called(inner) == "log_softmax" and (plain := logs(inner, source)) is not None:
                return node, plain[1]
        return alone(node, source)

    return edit


def trainable(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
    """``requires_grad_(True)`` in place of False, or of what is asked of each parameter."""
    value: ast.expr | None = None
    if isinstance(node, ast.Call) and called(node) == "requires_grad_" and len(node.args) == 1:
        value = node.args[0]
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
        value = node.value if node.targets[0].attr == "requires_grad" else None
    return None if value is None or (isinstance(value, ast.Constant) and value.value) else (value, "True")


def undropped(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
    """A layer built without the dropout that it is given, or has by default."""
    name = called(node)
    if not isinstance(node, ast.Call) or not name[:1].isupper():
        return None
    if name.startswith(("Dropout", "AlphaDropout")):
        return without(name)(node, source)
    given = next((each for each in node.keywords if each.arg == "dropout"), None)
    if given is not None:
        return given.value, "0.0"
    return (node, f"{source.segment(node)[:-1]}, dropout=0.0)") if name in DROPPING and node.args else None


def squeezed(by: str, place: int, axis: int = -1) -> Edit:
    """The first (0) or second (1) operand of a call, or of an operator, without an axis of one."""

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if isinstance(node, ast.Call) and called(node) == by and len(node.args) > place:
            return node.args[place], f"{source.operand(node.args[place])}.squeeze({axis})"
        if isinstance(node, ast.BinOp) and OPERATORS.get(by.strip("_").removeprefix("r"), ast.Sub) is type(node.op):
            side = (node.left, node.right)[place]
            return side, f"{source.operand(side)}.squeeze({axis})"
        return None

    return edit


def swapped(name: str, at: int = 0) -> Edit:
    """Two arguments of a call that stand beside each other, the first of them ``at``, each in the other's place."""

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, ast.Call) or called(node) != name or len(node.args) < at + 2:
            return None
        said = [source.segment(each) for each in (*node.args, *node.keywords)]
        said[at : at + 2] = said[at + 1], said[at]
        return node, f"{source.segment(node.func)}({', '.join(said)})"

    return edit


def renamed(name: str, new: str) -> Edit:
    """Another function, or class, called in place of this one."""

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, ast.Call) or called(node) != name:
            return None
        before = source.segment(node.func)
        return node.func, f"{before.removesuffix(name)}{new}"

    return edit


def preceded(method: str, by: str) -> Edit:
    """``by`` before the statement that calls this method, in one line with it; in it ``{}`` is the other object."""

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, ast.FunctionDef):
            return None
        calls = [each for each in ast.walk(node) if isinstance(each, ast.Expr) and called(each.value) == method]
        other = _owner(node, source, "step", "zero_grad") if "{}.zero" in by else _loss(node, source)
        if len(calls) != 1 or not other:
            return None
        return calls[0], f"{by.format(other)}; {source.segment(calls[0])}"

    return edit


def followed(method: str, by: str) -> Edit:
    """``by`` behind the statement that calls this method; in it ``{}`` is the optimizer."""

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, ast.FunctionDef):
            return None
        calls = [each for each in ast.walk(node) if isinstance(each, ast.Expr) and called(each.value) == method]
        named = [each.arg for each in node.args.args if "optim" in each.arg]
        other = _owner(node, source, "zero_grad") or next(iter(named), "")
        return (calls[0], f"{source.segment(calls[0])}; {by.format(other)}") if len(calls) == 1 and other else None

    return edit


def _owner(function: ast.FunctionDef, source: Source, *methods: str) -> str:
    """The object of which one of these methods is called."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods:
            return source.segment(node.func.value)
    return ""


def _loss(function: ast.FunctionDef, source: Source) -> str:
    """What a train step returns as its loss."""
    returned = [each.value for each in ast.walk(function) if isinstance(each, ast.Return) and each.value is not None]
    names = [each.id for value in returned for each in ast.walk(value) if isinstance(each, ast.Name)]
    return next((name for name in names if "loss" in name or "objective" in name), next(iter(names), ""))


def in_module_list(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
    """Layers in a plain list or mapping of a module, in one that registers them."""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
        return None
    kind = {ast.List: "List", ast.ListComp: "List", ast.Dict: "Dict", ast.DictComp: "Dict"}.get(type(node.value))
    held = source.segment(node.value)
    return (node.value, f"nn.Module{kind}({held})") if kind and ("nn." in held or "Module" in held) else None
