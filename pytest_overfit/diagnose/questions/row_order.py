"""Rows of a batch that a model puts into another order, and never back."""

from __future__ import annotations

from types import FrameType
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.questions.model_calls import ModelCall
from pytest_overfit.diagnose.questions.step_calls import users_line
from pytest_overfit.diagnose.questions.torch_functions import TorchFunctions
from pytest_overfit.errors.asking import Questions


def left_in_another_order(call: ModelCall, samples: int) -> str:
    """The line that first indexes all rows by an order that no later one undoes; empty where none does."""
    orders: list[tuple[str, Tensor]] = []

    def told(name: str, frame: FrameType, args: Any, kwargs: Any, out: Any, kept: bool) -> None:
        index = _index(name, args, kwargs)
        if index is None or not isinstance(out, Tensor) or len(index) != samples or out.shape[:1] != (samples,):
            return
        rows = torch.arange(samples, device=index.device)
        if bool((index.sort().values == rows).all()) and not bool((index == rows).all()):
            orders.append((users_line(frame), index.detach().clone()))

    with TorchFunctions(told, (), Questions()):
        call.again()
    for place, (line, order) in enumerate(orders):
        rows = torch.arange(samples, device=order.device)
        if line and not any(bool((order[later] == rows).all()) for _, later in orders[place + 1 :]):
            return line
    return ""


def _index(name: str, args: Any, kwargs: Any) -> Tensor | None:
    """The whole numbers by which the first axis of a tensor is indexed."""
    index = None
    if name == "__getitem__":
        index = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
    elif name == "index_select" and kwargs.get("dim", args[1] if len(args) > 1 else None) == 0:
        index = kwargs.get("index", args[2] if len(args) > 2 else None)
    whole = isinstance(index, Tensor) and index.dim() == 1 and not index.is_floating_point()
    return index if whole and isinstance(index, Tensor) and index.dtype != torch.bool else None
