"""One call of the loss, or of the user's step in its place, after which everything is as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.call_task import CallTask, heard_in
from pytest_overfit.run.elements import copy_of, numbers_of
from pytest_overfit.run.isolation import restored_process, seed_everything
from pytest_overfit.run.slopes import Sketch, Slopes, arriving, passing, slopes_of, turned
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.task import Heard, Terms, scalar_terms
from pytest_overfit.run.update import into_training

SAME = 1e-7  # of the objective: rounding
MOST_TERMS = 8
Answer = tuple[Heard, dict[str, float]]  # what the models returned, and the terms as numbers
# Term -> output by output with a graph its name, its shape, and where the term has a slope along it: None, nowhere.
Along = dict[str, list[tuple[str, torch.Size, Tensor | None]]]


class LossCall:
    """Calls the loss of a task, or a step, with a batch.

    Args:
        snapshot: what is put back after every call.
        seed: what every call begins with.
        step: the user's step, asked in place of the loss.
    """

    def __init__(
        self, task: CallTask, snapshot: Snapshot, *, seed: int, step: Callable[[Any], Any] | None = None
    ) -> None:
        self.task, self.snapshot, self.seed, self.step = task, snapshot, seed, step
        self.base: float | None = None
        self.slopes: Slopes | None = None
        self.along: Along | None = None  # of the batch as it is
        self.predicted: int | None = None  # outputs of the last call before its first update, None where it made none

    def without_step(self) -> LossCall:
        """The same of the loss."""
        return LossCall(self.task, self.snapshot, seed=self.seed)

    def as_the_run_does(self, batch: Any) -> Answer:
        """Outputs and terms; what the user's code raises comes through: the run would raise it too.

        Its graph tells ``along_outputs`` as well; what refuses to be differentiated does so again where that is asked.
        """

        def look(outputs: Heard, terms: Terms) -> Answer:
            if self.step is None and batch is self.task.batch:
                with contextlib.suppress(Refused), users_code():
                    self.along = _along(outputs, terms)
            return _answer(outputs, terms)

        return self._called(batch, look)  # type: ignore[no-any-return]

    def along_outputs(self, batch: Any) -> Along:
        """Of a loss: where its terms have a slope along the outputs.

        Raises:
            Refused: the user's code does not take the batch.
        """
        if batch is not self.task.batch:
            return self.look(batch, _along)  # type: ignore[no-any-return]
        if self.along is None:
            self.along = self.look(batch, _along)
        return self.along

    def answer(self, batch: Any) -> Answer:
        """Outputs and terms as numbers.

        Raises:
            Refused: the user's code does not take the batch.
        """
        return self.look(batch, _answer)  # type: ignore[no-any-return]

    def terms(self, batch: Any) -> dict[str, float]:
        """Every term as a number."""
        return self.answer(batch)[1]

    def moves(self, batch: Any) -> bool:
        """Whether another batch has another objective, or another gradient of it. What is refused has been read."""
        if self.base is None:
            self.base = self.terms(self.task.batch)["objective"]
        try:
            if not abs(self.terms(batch)["objective"] - self.base) <= SAME * abs(self.base):
                return True
        except Refused:
            return True
        return "objective" in self.turns(batch)

    def turns(self, batch: Any) -> dict[str, float]:
        """The terms whose gradient is another one for another batch, and by how much.

        A loss of spikes, signs or margins is flat in steps: it is the same number for many targets, and teaches
        another thing for each.
        """
        try:
            if self.slopes is None:
                self.slopes = self._slopes(self.task.batch)
            return turned(self.slopes, self._slopes(batch))
        except Refused:
            return {}

    def feeds(self, batch: Any) -> bool:
        """Whether layers with weights give other outputs for another batch, before a step updates them."""
        first, other = (self._passed(each) for each in (self.task.batch, batch))
        return first != other

    def _passed(self, batch: Any) -> list[Sketch]:
        with passing(self.task.model) as found:
            self.look(batch, lambda outputs, terms: None)
        return found

    def _slopes(self, batch: Any) -> Slopes:
        model = self.task.model
        if self.step is None:
            return self.look(batch, lambda outputs, terms: slopes_of(model, terms))  # type: ignore[no-any-return]
        with arriving(model) as found:
            self.look(batch, lambda outputs, terms: None)
        return found

    def look(self, batch: Any, look: Callable[[Heard, Terms], Any]) -> Any:
        """What ``look`` says of the outputs and the terms, with their graphs, before everything is put back.

        Raises:
            Refused: the user's code does not take the batch.
        """
        with users_code():
            return self._called(batch, look)

    def _called(self, batch: Any, look: Callable[[Heard, Terms], Any]) -> Any:
        task, self.predicted = self.task, None

        def updating(*_: Any) -> None:
            self.predicted = len(task.heard) if self.predicted is None else self.predicted

        with restored_process(), task.listening(), contextlib.ExitStack() as hooks:
            hooks.callback(register_optimizer_step_pre_hook(updating).remove)
            seed_everything(self.seed)
            task.heard.clear()
            into_training(task.model)
            try:
                # A loss may differentiate on its own (PINNs).
                with contextlib.nullcontext() if self.step is not None else torch.set_grad_enabled(True):
                    if self.step is None:
                        predictions, terms = task.forward(batch)
                        outputs = heard_in(predictions)
                    else:
                        terms = scalar_terms(self.step(batch))
                        outputs = Heard(task.heard)
                    return look(outputs, terms)
            finally:
                task.heard.clear()
                self.snapshot.restore()


def _along(outputs: Heard, terms: Terms) -> Along:
    asked = [(name, tensor) for name, tensor in outputs if tensor.requires_grad]
    found: Along = {}
    for term in [name for name, value in terms.items() if value.requires_grad][: MOST_TERMS if asked else 0]:
        tensors = [tensor for _, tensor in asked]
        gradients = torch.autograd.grad(terms[term], tensors, retain_graph=True, allow_unused=True)
        found[term] = [
            (name, tensor.shape, None if gradient is None else lives(gradient))
            for (name, tensor), gradient in zip(asked, gradients, strict=True)
        ]
    return found


def lives(gradient: Tensor) -> Tensor:
    """Where there is a slope, on the host; no place at all where a gradient shows no numbers."""
    numbers = numbers_of(gradient)
    return torch.zeros(()) if numbers is None else (numbers.nan_to_num(1.0) != 0).cpu()


def _answer(outputs: Heard, terms: Terms) -> Answer:
    return plain_outputs(outputs), {name: float(value.detach()) for name, value in terms.items()}


def plain_outputs(outputs: Heard) -> Heard:
    """Copies of outputs as plain tensors without a graph, whatever their classes know to do."""
    plain = ((name, numbers_of(tensor)) for name, tensor in outputs)
    return Heard((name, numbers.clone()) for name, numbers in plain if numbers is not None)


def exchanged(batch: Any, news: Mapping[int, Tensor]) -> Any:
    """A batch with some of its tensors (by their ids) exchanged; the others are copied: nobody writes into them."""

    def choose(tensor: Tensor) -> Tensor:
        if id(tensor) in news:
            return news[id(tensor)]
        return copy_of(tensor)

    return map_tensors(choose, batch)
