"""What a train step of the user's own differentiates, caught before it does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


class _Caught(BaseException):
    def __init__(self, root: Tensor) -> None:
        self.root = root


@contextlib.contextmanager
def backward_is(other: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Another ``backward`` within the block, which is given the true one."""
    original = torch.autograd.backward
    torch.autograd.backward = other
    try:
        yield original
    finally:
        torch.autograd.backward = original


@contextlib.contextmanager
def _unscaled() -> Iterator[None]:
    """The loss in its own units: no scaler multiplies it."""
    scale = torch.amp.GradScaler.scale
    torch.amp.GradScaler.scale = lambda scaler, outputs: outputs  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.amp.GradScaler.scale = scale  # type: ignore[method-assign]


def differentiated(step: Callable[[Any], Any], batch: Any, *, scaled: bool = False) -> Tensor | None:
    """What a step differentiates first, with its graph; None where it differentiates nothing.

    The step ends there: nothing is updated. The user's code runs up to its ``backward()``.

    Args:
        scaled: a scaler's factor stays in it.
    """

    def caught(tensors: Any, *args: Any, **kwargs: Any) -> None:
        raise _Caught(tensors if isinstance(tensors, Tensor) else tensors[0])

    try:
        with contextlib.nullcontext() if scaled else _unscaled(), backward_is(caught), torch.enable_grad():
            step(batch)
    except _Caught as found:
        return found.root if found.root.dim() == 0 else found.root.sum()
    return None
