"""A call of a loss that is given the target before the output, as it reads with both in their places. No torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pytest_overfit.diagnose.source_lines import Edit, Source, called, swapped

OUTPUT_FIRST = ("cross_entropy", "nll_loss", "kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits",
                "gaussian_nll_loss", "poisson_nll_loss", "soft_margin_loss", "multi_margin_loss")  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.Lambda)


def output_first(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
    """A loss of torch's in a function, whose first argument makes the output."""
    found = _turned(node, source) if isinstance(node, FUNCTIONS) else ()
    return next((edit for name, _, edit in found if name in OUTPUT_FIRST), None)


def output_first_at(place: str) -> Edit:
    """The same of whatever is called at ``file.py:12``: a criterion that has a name of its own."""
    file, _, line = place.rpartition(":")

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, FUNCTIONS) or source.path.replace("\\", "/").rpartition("/")[2] != file:
            return None
        return next((edit for _, at, edit in _turned(node, source) if at == int(line)), None)

    return edit


def _turned(function: ast.FunctionDef | ast.Lambda, source: Source) -> Iterator[tuple[str, int, tuple[ast.AST, str]]]:
    """The calls that are given an output second and none first: name, line, and the call as it should read."""
    if not function.args.args:
        return
    outputs = {function.args.args[0].arg}

    def read(expression: ast.AST) -> bool:
        return any(isinstance(each, ast.Name) and each.id in outputs for each in ast.walk(expression))

    for each in ast.walk(function):
        if isinstance(each, ast.Assign) and read(each.value):
            parts = each.targets[0].elts if isinstance(each.targets[0], ast.Tuple) else each.targets
            outputs |= {part.id for part in parts if isinstance(part, ast.Name)}
    for each in ast.walk(function):
        if not isinstance(each, ast.Call):
            continue
        named = {keyword.arg: keyword for keyword in each.keywords}
        first, second = named.get("input"), named.get("target")
        if len(each.args) > 1 and read(each.args[1]) and not read(each.args[0]):
            edit = swapped(called(each))(each, source)
        elif first is not None and second is not None and read(second.value) and not read(first.value):
            edit = _renamed(first, second, each, source)
        else:
            continue
        if edit is not None:
            yield called(each), each.lineno, edit


def _renamed(first: ast.keyword, second: ast.keyword, call: ast.Call, source: Source) -> tuple[ast.AST, str]:
    """Two keywords of a call, each with what the other is given."""
    values = {id(first): second.value, id(second): first.value}
    said = [source.segment(each) for each in call.args]
    said += [
        f"{each.arg}={source.segment(values[id(each)])}" if id(each) in values else source.segment(each)
        for each in call.keywords
    ]
    return call, f"{source.segment(call.func)}({', '.join(said)})"
