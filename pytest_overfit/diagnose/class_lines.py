"""A regression loss of class ids, as the line of a classifier. No torch."""

from __future__ import annotations

import ast

from pytest_overfit.diagnose.source_lines import Edit, Source, called

RESHAPED = ("float", "double", "half", "to", "type", "unsqueeze", "view", "reshape", "expand", "expand_as", "type_as")


def classified(name: str, criterion: str, *, last: bool, ids_last: bool) -> Edit:
    """The call, or that of a criterion built in place, as cross entropy of output and ids.

    Args:
        name: the function of torch.
        criterion: its class.
        last: the output has axes between samples and classes.
        ids_last: the ids of the batch have a last axis of one.
    """

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, ast.Call) or len(node.args) != 2 or node.keywords:
            return None
        before = source.segment(node.func)
        if called(node) == name:
            function = f"{before.removesuffix(name)}cross_entropy"
        elif called(node.func) == criterion:
            function = before.replace(criterion, "CrossEntropyLoss", 1)
        else:
            return None
        output, ids = source.operand(node.args[0]), source.operand(_bare(node.args[1]))
        return (
            node,
            f"{function}({output}{'.movedim(-1, 1)' if last else ''}, {ids}{'.squeeze(-1)' if ids_last else ''})",
        )

    return edit


def _bare(node: ast.expr) -> ast.expr:
    """What is made a column of floats."""
    while True:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RESHAPED:
            node = node.func.value
        elif isinstance(node, ast.Subscript) and _adds_axis(node.slice):
            node = node.value
        else:
            return node


def _adds_axis(index: ast.expr) -> bool:
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    whole = all(
        (isinstance(part, ast.Constant) and part.value in (None, ...))
        or (isinstance(part, ast.Slice) and part.lower is part.upper is part.step is None)
        for part in parts
    )
    return whole and any(isinstance(part, ast.Constant) and part.value is None for part in parts)
