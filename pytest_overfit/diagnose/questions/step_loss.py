"""The loss inside a train step of the user's own: what it would differentiate, before it does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pytest_overfit.errors.asking import Unanswerable
from pytest_overfit.run.attributes import attributes_kept
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.differentiated import differentiated
from pytest_overfit.run.task import Heard, Precision, Terms, scalar_terms


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
        with attributes_kept(self.model):
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
