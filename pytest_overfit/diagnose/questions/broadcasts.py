"""Where two shapes broadcast to a table of all against all: does it matter which row is whose?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pytest_overfit.diagnose.operation import Broadcast, Op, Shape
from pytest_overfit.diagnose.questions.operation_names import REGRESSORS
from pytest_overfit.run.task import Heard, Terms

SAME = 1e-5  # relative: a mean of the same numbers in another order


class _Other(TorchFunctionMode):
    """Gives the first operation that two tensors of these shapes meet in other rows, in the same or in reverse order.

    They are those of the one with more axes, which the table has along its first, or those of the ``other`` one.
    """

    def __init__(self, shapes: tuple[Shape, ...], *, turned: bool, other: bool) -> None:
        super().__init__()
        self.shapes, self.turned, self.other, self.done = shapes, turned, other, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        pair = [a for a in args[:2] if isinstance(a, Tensor)]
        if not self.done and len(pair) == 2 and tuple(tuple(a.shape) for a in pair) == self.shapes:
            larger = max((0, 1), key=lambda i: (pair[i].dim(), len(pair[i]) > 1))
            which = 1 - larger if self.other else larger
            has_rows = not self.other or (len(pair[which]) > 1 and (pair[which].requires_grad or _subtracts(func)))
            if pair[which].is_floating_point() and has_rows:  # of whole numbers, a mask or ids, there are no other rows
                self.done, args = True, [*args]
                args[which] = self._rows(pair[which])
        return func(*args, **(kwargs or {}))

    def _rows(self, tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor)
        rows = tensor.detach() + (tensor.detach().abs().mean() + SAME) * noise
        return rows.flip(0) if self.turned else rows


def _subtracts(func: Any) -> bool:
    """Whether a function takes a difference: what a prediction is multiplied by may be an axis of its own."""
    return getattr(func, "__name__", "").strip("_") in ("sub", "rsub", "subtract")


def unpaired(forward: Callable[[], tuple[Heard, Terms]], noted: Iterable[Op]) -> tuple[Op, ...]:
    """The first broadcast, and whether its rows may stand in any order: then none is held against its own.

    Args:
        forward: the loss of the trained model; repeatable.
    """
    for op in noted:
        shapes = op.shapes[:2]
        if len(shapes) < 2 or not all(shapes) or shapes[0] == shapes[1]:
            continue
        if isinstance(op.fact, Broadcast) or op.name in REGRESSORS:
            same = _in_any_order(forward, shapes, other=False)
            if same is False:  # a mask of one of the two goes with its rows: those of the other may be in any order
                same = bool(_in_any_order(forward, shapes, other=True))
            if same is not None:
                fact = op.fact if isinstance(op.fact, Broadcast) else Broadcast(op.name, True, True, 1)
                return (replace(op, fact=replace(fact, unpaired=same)),)
    return ()


def _in_any_order(forward: Callable[[], tuple[Heard, Terms]], shapes: tuple[Shape, ...], *, other: bool) -> bool | None:
    """Whether turning the rows of one of the two leaves the objective as it is; None where it has no rows to turn."""
    values = []
    for turned in (False, True):
        with _Other(shapes, turned=turned, other=other) as exchanged:
            values.append(float(forward()[1]["objective"].detach()))
        if not exchanged.done:
            return None
    return abs(values[1] - values[0]) <= SAME * abs(values[0]) if all(map(math.isfinite, values)) else None
