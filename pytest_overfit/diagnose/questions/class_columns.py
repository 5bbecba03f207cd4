"""Class ids (N, 1) that a regression loss holds against every column of an output (N, C), which torch only warns of."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pytest_overfit.diagnose.operation import LOSS, ClassColumns, Op
from pytest_overfit.diagnose.questions.operation_names import REGRESSORS
from pytest_overfit.diagnose.questions.step_calls import users_line
from pytest_overfit.diagnose.questions.targets import origin_of
from pytest_overfit.diagnose.questions.tensors import dense_tensors, is_real
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.update import into_training

DIFFERENCES = ("sub", "__sub__", "__rsub__", "rsub")


class _Meetings(TorchFunctionMode):
    """Notes where an output meets class ids, and how far its columns lie apart there."""

    def __init__(self, batch: Any) -> None:
        super().__init__()
        self.batch, self.ids = batch, {key: t for key, t in dense_tensors(batch) if _is_of_classes(t)}
        self.found: Op | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if self.found is None and self.ids and name in (*REGRESSORS, *DIFFERENCES):
            given = [t for t in (*args, *(kwargs or {}).values()) if isinstance(t, Tensor)]
            if len(given) == 2:
                self._meet(name, *sorted(given, key=lambda t: not t.requires_grad))
        return func(*args, **(kwargs or {}))

    def _meet(self, name: str, output: Tensor, target: Tensor) -> None:
        one = target.dim() == output.dim() > 1 and target.shape[-1] == 1 and target.shape[:-1] == output.shape[:-1]
        if not one or not output.requires_grad or target.requires_grad or not is_real(output):
            return
        with torch._C.DisableTorchFunction(), torch.no_grad():
            key, turned = origin_of(self.batch, target)
            ids, columns = self.ids.get(key), output.shape[-1]
            if ids is None or turned or not 1 < int(ids.max()) + 1 <= columns:
                return
            held = output.detach().double()
            spread = float(ids.double().std())
            apart = float(held.std(-1).mean()) / spread if spread else 1.0
            shape = tuple(target.shape), tuple(ids.shape)
        line = users_line(sys._getframe(2))
        self.found = Op(name, LOSS, line, (tuple(output.shape), *shape), fact=ClassColumns(columns, key, apart))


def _is_of_classes(tensor: Tensor) -> bool:
    whole = tensor.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    return whole and tensor.numel() > 1 and int(tensor.min()) >= 0


def class_columns(on: RunContext, first: Sequence[Op]) -> tuple[Op, ...]:
    """The first place where the loss of the trained model holds class ids against every column.

    Args:
        first: the operations of the first step, of which one is to hold one column against several.
    """
    shapes = (op.shapes[:2] for op in first if len(op.shapes) > 2)
    wide = any(a[:-1] == b[:-1] and 1 in (a[-1:] + b[-1:]) and a != b for a, b in shapes)
    meetings = _Meetings(on.task.batch)
    if meetings.ids and wide:
        into_training(on.task.model)
        with meetings:
            on.seeded()
    return () if meetings.found is None else (meetings.found,)
