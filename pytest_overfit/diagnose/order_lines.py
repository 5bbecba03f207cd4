"""Rows that are put into another order, put back where a function returns them. No torch."""

from __future__ import annotations

import ast

from pytest_overfit.diagnose.source_lines import Edit, Source, called


def order_undone(place: str) -> Edit:
    """What a function returns in the order that it had before ``file.py:12`` indexed the rows by another one."""
    file, _, line = place.rpartition(":")

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, ast.FunctionDef) or source.path.replace("\\", "/").rpartition("/")[2] != file:
            return None
        orders = {name for each in ast.walk(node) if getattr(each, "lineno", 0) == int(line) and (name := _order(each))}
        returned = [each.value for each in ast.walk(node) if isinstance(each, ast.Return)]
        value = returned[0] if len(returned) == 1 else None
        if len(orders) != 1 or value is None or isinstance(value, (ast.Tuple, ast.Dict, ast.List)):
            return None
        return value, f"{source.operand(value)}[{orders.pop()}.argsort()]"

    return edit


def _order(node: ast.AST) -> str:
    """The variable by which rows are indexed."""
    index: ast.expr | None = None
    if isinstance(node, ast.Subscript):
        index = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
    elif isinstance(node, ast.Call) and called(node) == "index_select" and node.args:
        index = node.args[-1]
    return index.id if isinstance(index, ast.Name) else ""
