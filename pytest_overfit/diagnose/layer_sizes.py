"""A layer that gets another number of channels or features than it was built for, and the line that builds it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from pytest_overfit.diagnose.source_lines import Edit, Source, called

if TYPE_CHECKING:
    import ast


@dataclass(frozen=True)
class Size:
    """What a layer was built for, by the name of the argument, what it is given, and the argument behind it.

    ``last``: the size that it wants is that of the last axis.
    """

    name: str
    built: int
    given: int
    then: str = ""
    made: int | None = None
    last: bool = False


def wanted_size(module: nn.Module, given: Tensor) -> Size | None:
    """The size that a layer would have to be built for; None where it fits, or no size is to blame.

    Example:
        >>> wanted_size(nn.Conv2d(1, 8, 3), torch.zeros(2, 3, 9, 9)).given                       # doctest: +SKIP
        3
    """
    size = _size_of(module, tuple(given.shape))
    return None if size is None or size.given == size.built or not size.given else size


def _size_of(module: nn.Module, shape: tuple[int, ...]) -> Size | None:
    if isinstance(module, nn.Linear) and shape:
        return Size("in_features", module.in_features, shape[-1], "out_features", module.out_features)
    if isinstance(module, _ConvNd):
        axis = -1 - len(module.kernel_size)
        if len(shape) < -axis or shape[axis] % module.groups:
            return None
        last = len(shape) == 1 - axis and shape[-1] == module.in_channels
        return Size("in_channels", module.in_channels, shape[axis], "out_channels", module.out_channels, last)
    if isinstance(module, _NormBase) and len(shape) > 1:
        return Size("num_features", module.num_features, shape[1])
    if isinstance(module, nn.GroupNorm) and len(shape) > 1 and not shape[1] % module.num_groups:
        return Size("num_channels", module.num_channels, shape[1])
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1 and shape:
        return Size("normalized_shape", module.normalized_shape[0], shape[-1])
    if isinstance(module, nn.RNNBase) and shape:
        return Size("input_size", module.input_size, shape[-1], "hidden_size", module.hidden_size)
    return None


def built_for(module: nn.Module, size: Size) -> Edit:
    """The layer of these sizes, built for what it is given."""
    import ast

    kind = type(module).__name__
    place = 1 if size.name == "num_channels" else 0

    def edit(node: ast.AST, source: Source) -> tuple[ast.AST, str] | None:
        if not isinstance(node, ast.Call) or called(node) != kind:
            return None
        named = {each.arg: each.value for each in node.keywords}
        width = node.args[place] if len(node.args) > place else named.get(size.name)
        made = node.args[place + 1] if len(node.args) > place + 1 else named.get(size.then)
        if width is None or _number(width) != size.built:
            return None
        return (width, str(size.given)) if not size.then or _fits(made, size.made) else None

    return edit


def _fits(node: Any, made: int | None) -> bool:
    return node is not None and _number(node) in (None, made)


def _number(node: ast.expr) -> int | None:
    """A whole number, or a product of such, as a size is written; None of what only a run knows."""
    import ast

    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        sides = _number(node.left), _number(node.right)
        return None if None in sides else math.prod(side for side in sides if side is not None)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else None
