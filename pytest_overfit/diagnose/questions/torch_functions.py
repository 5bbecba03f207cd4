"""Every torch function that a thread calls, as it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pytest_overfit.diagnose.questions.step_calls import CALLERS, UPDATES
from pytest_overfit.errors.asking import Questions

_CHEAP = frozenset({
    "shape", "dtype", "device", "size", "dim", "ndim", "numel", "is_floating_point", "requires_grad", "grad_fn",
    "grad", "is_leaf", "layout", "is_complex", "is_sparse", "stride", "is_contiguous", "__len__", "storage_offset",
    "is_nested", "is_quantized", "requires_grad_", "__hash__", "is_cuda", "data_ptr", "names", "T", "mT",
})  # fmt: skip


class TorchFunctions(TorchFunctionMode):
    """Tells of every torch function within the block, once it has run; what changes the batch has a ``!`` in its name.

    Args:
        told: called with the name, the caller's frame, what was given, what was returned, and whether gradients are on.
        batch: the ids of the tensors of the batch.
        questions: keeps what breaks in ``told``.
    """

    def __init__(
        self, told: Callable[[str, FrameType, Any, Any, Any, bool], None], batch: Container[int], questions: Questions
    ) -> None:
        super().__init__()
        self.told, self.batch, self.questions = told, batch, questions

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith(UPDATES) and caller not in CALLERS:  # the update itself: nothing there is the user's
            return func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__") and args and id(args[0]) in self.batch
        out = func(*args, **(kwargs or {}))
        if name in _CHEAP and func is not torch.autograd.grad:
            return out
        on = torch.is_grad_enabled()
        asking = self.questions.asking("the operations of a step")
        with asking, torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            self.told(f"{name}!" if in_place else name, sys._getframe(1), args, kwargs or {}, out, on)
        return out
