"""What a model keeps from call to call: a batch gives something else once another one has been evaluated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.movement import Carried
from pytest_overfit.diagnose.questions.dependence import evaluating_mode
from pytest_overfit.diagnose.questions.loss_terms import another
from pytest_overfit.diagnose.questions.modes import SAME, mode_held
from pytest_overfit.diagnose.questions.own_answers import Answers, at_the_end, own_answers
from pytest_overfit.diagnose.questions.step_loss import loss_of
from pytest_overfit.errors.asking import users_code
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.update import optimizers_heard

SETTLED = 5  # passes of the same batch
COUNTS = 2.0  # times what the same batch moves: what only counts its calls goes on with any batch


def measure_carried(context: RunContext) -> Carried | None:
    """The first module that answers the same inputs otherwise after a pass of another batch, in evaluation mode.

    The passes are whole ones, with whatever the loss or the step resets before it calls the model, or after it. Buffers
    and parameters are kept on purpose: they are put back between them.
    """
    task, model = loss_of(context), context.task.model
    if task is None:
        return None
    names = {id(module): name or type(model).__name__ for name, module in model.named_modules()}

    def passed(batch: Any = None) -> None:
        seed_everything(context.seed)
        if context.step is None:
            context.on(task).forward(batch)
            return
        with optimizers_heard(lambda optimizer, args, kwargs: optimizer.zero_grad()), torch.enable_grad(), users_code():
            context.step(context.task.batch if batch is None else batch)

    def answers(recorded: Answers | None = None) -> Answers:
        with mode_held(model):
            return own_answers(model, passed, recorded, _within_a_graph)

    homes: list[dict[str, Any]] = [home for module in model.modules() for home in (module._parameters, module._buffers)]
    kept = [(home, name, t, t.detach().clone()) for home in homes for name, t in home.items() if t is not None]

    def after(batch: Any, recorded: Answers | None = None) -> Answers:
        with mode_held(model):
            passed(batch)
        for home, name, tensor, old in kept:  # a module may put another one in its place
            home[name] = tensor.copy_(old)
        return answers(recorded)

    other = map_tensors(another, context.task.batch)
    with evaluating_mode(model), torch.no_grad():
        for _ in range(SETTLED):  # what was asked before has left something of it, too
            plain = answers()
        counts = at_the_end(plain, after(None))
        plain = answers()
        if (moved := at_the_end(plain, after(other))) <= max(SAME, COUNTS * counts):
            return None
        heard = [each.module for each in after(other, plain).values() if each.gap > SAME]
    return Carried(names[id(heard[0])], type(heard[0]).__name__, moved) if heard else None


def _within_a_graph(tensor: Tensor) -> Tensor:
    """What is handed on instead, so that a step can differentiate it."""
    return tensor.requires_grad_().clone() if tensor.is_floating_point() else tensor
