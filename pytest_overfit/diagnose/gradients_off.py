"""Where in a user's source gradients are switched off around a line, and that line with them on. No torch."""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Mapping

from pytest_overfit.diagnose.source_lines import Edit, Source, called

OFF = ("no_grad", "inference_mode")
SWITCH = "set_grad_enabled"


def off_around(path: str, line: int, function: int) -> int | None:
    """The line of the ``with`` around a line, or of the decorator of its function, that switches gradients off.

    Args:
        path: of a source.
        function: the line that the function begins in, decorators and all.
    """
    return _off(path).get(line) or _off(path).get(-function)


@functools.lru_cache(maxsize=64)  # of a run: every operation under no_grad asks
def _off(path: str) -> Mapping[int, int]:
    """Line -> that of the innermost ``with`` around it; minus the first line of a function -> that of its decorator."""
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError, RecursionError):
        return {}
    found: dict[int, int] = {}
    for node in ast.walk(tree):  # outer ones first
        if isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                if _switches(item.context_expr):
                    within = range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1)
                    found |= dict.fromkeys(within, item.context_expr.lineno)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for decorator in node.decorator_list:
                if _switches(decorator):
                    found[-node.decorator_list[0].lineno] = decorator.lineno
    return found


def _switches(node: ast.expr) -> bool:
    """Whether an expression is ``torch.no_grad()`` or the like; a decorator needs no brackets."""
    named = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else called(node)
    given = node.args[0] if isinstance(node, ast.Call) and node.args else None
    said = given.value if isinstance(given, ast.Constant) else None
    return said is False if named == SWITCH else named in OFF and said is not False


def gradients_on(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
    """What switches gradients off, switching them on."""
    if isinstance(node, (ast.With, ast.AsyncWith)):
        places = [item.context_expr for item in node.items]
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        places = node.decorator_list
    else:
        return None
    for place in places:
        if _switches(place):
            function = place.func if isinstance(place, ast.Call) else place
            owner = f"{source.segment(function.value)}." if isinstance(function, ast.Attribute) else ""
            return place, f"{owner}{SWITCH}(True)" if called(place) == SWITCH else f"{owner}enable_grad()"
    return None


GRADIENTS_ON: Edit = gradients_on
