"""Every torch function that a thread calls, as it is called."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Container, Iterator
from types import FrameType
from typing import Any

import torch
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _pop_mode, _push_mode

from pytest_overfit.diagnose.questions import step_calls
from pytest_overfit.diagnose.questions.step_calls import CALLERS, UPDATES
from pytest_overfit.errors.asking import Questions
from pytest_overfit.run.update import has_closure, optimizers_heard

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
        with unheard(), asking, torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            self.told(f"{name}!" if in_place else name, sys._getframe(1), args, kwargs or {}, out, on)
        return out


class unheard:  # noqa: N801 - as ``users_code``
    """Around work of ours, or of torch's optimizers, in a step that is heard: nothing there is the user's."""

    def __enter__(self) -> None:
        profile, mode = sys.getprofile(), _get_current_function_mode()  # type: ignore[no-untyped-call]
        self.profile = profile if getattr(profile, "__module__", "") == step_calls.__name__ else None
        self.mode = mode if type(mode) is TorchFunctions else None
        if self.profile is not None:
            sys.setprofile(None)
        if self.mode is not None:
            _pop_mode()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        if self.mode is not None:
            _push_mode(self.mode)  # type: ignore[no-untyped-call]
        if self.profile is not None:
            sys.setprofile(self.profile)


@contextlib.contextmanager
def steps_unheard() -> Iterator[None]:
    """Nothing that an optimizer of torch's does by itself within the block is listened to."""
    steps: list[unheard] = []

    def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks  # by the user, maybe
        own = type(optimizer).__module__.startswith("torch.optim.")
        if own and not hooked and not has_closure(args, kwargs):
            steps.append(unheard())
            steps[-1].__enter__()

    def after(*_: Any) -> None:
        while steps:
            steps.pop().__exit__()

    with optimizers_heard(before, after):
        try:
            yield
        finally:
            after()  # of one that has raised
