"""Parameters that get no gradient because an input of this batch is zero all through: a state to begin with, say."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from pytest_overfit.run.batch import named_tensors
from pytest_overfit.run.elements import is_dense, numbers_of
from pytest_overfit.run.influence import perturbed
from pytest_overfit.run.loss_call import LossCall, exchanged
from pytest_overfit.run.task import Heard, Terms


def waiting_for(call: LossCall, inputs: Sequence[str]) -> tuple[str, ...]:
    """Those whose gradient is zero as the batch is, and is not once its zeros are other numbers.

    Empty where no input is zero, or all of them are: then there is nothing that tells the samples apart. Beside each
    another parameter of its module learns: where a whole module waits, a zero stands behind it, and is a mistake.

    Args:
        inputs: the keys of the batch that the outputs depend on.
    """
    batch = call.task.batch
    real = {k: t for k, t in named_tensors(batch) if k in inputs and numbers_of(t) is not None and is_dense(t)}
    zeros = {key: tensor for key, tensor in real.items() if tensor.is_floating_point() and not tensor.any()}
    if not zeros or len(zeros) == len(real) or call.step is not None:
        return ()
    news = {id(tensor): changed for tensor in zeros.values() if (changed := perturbed(tensor)) is not None}
    reached = partial(_reached, dict(call.task.model.named_parameters()))
    now, then = call.look(batch, reached), call.look(exchanged(batch, news), reached)
    beside = {name.rpartition(".")[0] for name in now}
    return tuple(name for name in then if name not in now and name.rpartition(".")[0] in beside)


def _reached(parameters: dict[str, Tensor], outputs: Heard, terms: Terms) -> tuple[str, ...]:
    learning = {name: p for name, p in parameters.items() if p.requires_grad}
    found = torch.autograd.grad(terms["objective"], list(learning.values()), allow_unused=True)
    return tuple(name for name, g in zip(learning, found, strict=True) if g is not None and bool(g.any()))
