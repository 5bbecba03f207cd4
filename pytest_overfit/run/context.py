"""The context of a run, open to questions and trials: everything that was trained, and a way back to the start.

Who looks is handed in as an ``Inspector``: what is looked for is not the run's business.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from pytest_overfit.errors.asking import users_code
from pytest_overfit.run.call_task import CallTask, heard_in
from pytest_overfit.run.gradient_watch import GradientWatch
from pytest_overfit.run.isolation import restored_process, seed_everything
from pytest_overfit.run.loop import Curves, Plan, fit
from pytest_overfit.run.optim import Freezing, GradientClipper
from pytest_overfit.run.phases import Tell, tell_nobody
from pytest_overfit.run.record import Load, RunRecord
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.subject import Subject
from pytest_overfit.run.task import Heard, Terms
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.run.update import Update, into_training
from pytest_overfit.run.watchdog import Watchdog

NEVER = 10**9


@dataclass
class RunContext:
    """The live parts of one run.

    Args:
        start: the state before the first step; ``at_start`` goes back to it.
        update: makes the update that the run makes, of a task; called with that, the watch of its gradients, and what
            a step of the user's gets as its model where that is another.
        request: the run as it was asked for.
        optimizers: those that are known; a step of the user's own may bring more.
        step: the user's own step as a call with a batch, None where ours is used.
        handed: what a step of the user's gets as its optimizer.
        drawn: hands out another batch, None where the data are one batch.
        callables: what may hold state of the user's besides the model.
        loads: checkpoints that did not fill the whole model when it was built.
        initial: a parameter's value before the first step.
        tell: takes what the run is busy with.
        watchdog: limits the user's code where it is asked something that its own run did not ask of it.
    """

    task: CallTask
    plan: Plan
    seed: int
    start: Snapshot
    update: Callable[..., Update]
    optimizers: list[Optimizer]
    initial: Callable[[Tensor], Tensor | None]
    clip: GradientClipper
    frozen: Freezing
    step: Callable[[Any], Any] | None = None
    handed: Any = None
    request: Any = None
    drawn: Callable[[], Any] | None = None
    callables: tuple[Any, ...] = ()
    loads: tuple[Load, ...] = ()
    tell: Tell = tell_nobody
    watchdog: Watchdog = field(default_factory=Watchdog)

    @contextlib.contextmanager
    def at_start(self) -> Iterator[None]:
        """The block begins in the state before the first step, under the run's seed, and leaves that state behind."""
        with self.aside():
            self.start.restore()
            seed_everything(self.seed)
            into_training(self.task.model)
            yield

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Random generators and switches come back after the block, and the state before the first step with them."""
        with restored_process():
            try:
                yield
            finally:
                self.task.heard.clear()
                self.start.restore()

    def forward(self, batch: Any = None) -> tuple[Heard, Terms]:
        """One forward pass and the loss: the outputs that were heard, and the terms with their graphs.

        Raises:
            Refused: the model or the loss raised.
        """
        self.task.heard.clear()
        with self.task.listening(), torch.enable_grad(), users_code():
            predictions, terms = self.task.forward(self.task.batch if batch is None else batch)
        heard = heard_in(predictions)
        self.task.heard.clear()
        return heard, terms

    def seeded(self, batch: Any = None) -> tuple[Heard, Terms]:
        """The same under the run's seed: the same numbers in every call."""
        seed_everything(self.seed)
        return self.forward(batch)

    def again(self, update: Update, *, plan: Plan, watch: GradientWatch) -> Curves:
        """A run like the first, from whatever state there is now."""
        seed_everything(self.seed)
        return fit(self.task, update, plan, watch=watch)

    def new_watch(self) -> GradientWatch:
        """A watch of the gradients of a run that is made again."""
        return GradientWatch(self.task.model, infinite=self.plan.infinite)

    def on(self, task: Any) -> RunContext:
        """The same run of another task."""
        return replace(self, task=task)


class Beside(Protocol):
    """Who runs the first steps of a run otherwise once it is over."""

    def beside(self) -> contextlib.AbstractContextManager[None]:
        """Around the whole run."""

    def watch(self, context: RunContext, subject: Subject, update: Update, *, ranks: int = 1) -> Update:
        """The update that the loop is to call, in place of the one it would, which so many ranks make together;
        nothing has been trained yet.
        """

    def compared(self, context: RunContext, curves: Curves) -> tuple[TwinResult, ...]:
        """The model is as it was trained, and has to be left so."""


class Inspector(Protocol):
    """Somebody who looks into a run."""

    def before(self, context: RunContext) -> None:
        """Before the first step; the state has to be left as it was."""

    def watch(self, update: Update) -> Update:
        """The update that the loop is to call, in place of the one it would."""

    def trained(self, context: RunContext, curves: Curves) -> None:
        """The model is as it was trained; the state has to be left as it was."""

    def after(self, context: RunContext, record: RunRecord) -> None:
        """The record stands, and the state may be any: what was trained is not needed any more."""
