"""The loss inside a train step of the user's own: what it would differentiate, before it does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.questions.tensors import tensors_in
from pytest_overfit.errors.asking import Unanswerable
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.task import Heard, Precision, Terms, scalar_terms


class _Caught(BaseException):
    def __init__(self, root: Tensor) -> None:
        self.root = root


@contextlib.contextmanager
def _backward_is(other: Callable[..., Any]) -> Iterator[None]:
    """Another ``backward``, and the loss in its own units: no scaler multiplies it."""
    original, scale = torch.autograd.backward, torch.amp.GradScaler.scale
    torch.autograd.backward, torch.amp.GradScaler.scale = other, lambda scaler, outputs: outputs  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autograd.backward, torch.amp.GradScaler.scale = original, scale  # type: ignore[method-assign]


def differentiated(step: Callable[[Any], Any], batch: Any) -> Tensor | None:
    """What a step differentiates first, with its graph; None where it differentiates nothing.

    The step ends there: nothing is updated. The user's code runs up to its ``backward()``.
    """

    def caught(tensors: Any, *args: Any, **kwargs: Any) -> None:
        raise _Caught(next(tensors_in([tensors])))

    try:
        with _backward_is(caught), torch.enable_grad():
            step(batch)
    except _Caught as found:
        return found.root if found.root.dim() == 0 else found.root.sum()
    return None


@dataclass(frozen=True)
class StepTask:
    """A user's step as a task of ours: its forward pass and what it differentiates."""

    inner: Any
    step: Callable[[Any], Any]
    val_batch: Any | None = None
    heard: Heard = field(default_factory=Heard)

    @property
    def model(self) -> nn.Module:
        return self.inner.model  # type: ignore[no-any-return]

    @property
    def batch(self) -> Any:
        return self.inner.batch

    @property
    def device(self) -> torch.device:
        return self.inner.device  # type: ignore[no-any-return]

    @property
    def precision(self) -> Precision:
        return self.inner.precision  # type: ignore[no-any-return]

    @property
    def repeatable(self) -> bool:
        return True

    def listening(self) -> contextlib.AbstractContextManager[Any]:
        return self.inner.listening()  # type: ignore[no-any-return]

    def forward(self, batch: Any) -> tuple[Any, Terms]:
        self.inner.heard.clear()
        root = differentiated(self.step, batch)
        if root is None:
            raise Unanswerable("the step differentiates nothing")
        outputs = Heard(self.inner.heard)
        self.inner.heard.clear()
        return outputs, scalar_terms(root)


def loss_of(context: RunContext) -> Any:
    """What of a run can be asked for its loss again and again: its task, or the loss inside its own step; or None."""
    if context.task.repeatable:
        return context.task
    return None if context.step is None else StepTask(context.task, context.step)
