"""Parameters that this batch does not use: what they multiply is zero in it, or no sample chooses them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pytest_overfit.run.batch import named_tensors
from pytest_overfit.run.elements import is_dense, numbers_of
from pytest_overfit.run.influence import perturbed
from pytest_overfit.run.loss_call import LossCall, exchanged
from pytest_overfit.run.task import Heard, Terms

TRIES = 4  # other batches, of the same numbers


def waiting_for(call: LossCall, inputs: Sequence[str]) -> tuple[str, ...]:
    """Those whose gradient is zero as the batch is, and is not once its zeros are other numbers, or none is zero.

    Of zeros none where no input is zero, or all of them are: then there is nothing that tells the samples apart. Beside
    each another parameter of its module learns: where a whole module waits, a zero stands behind it, and is a mistake.

    Args:
        inputs: the keys of the batch that the outputs depend on.
    """
    batch = call.task.batch
    unchosen = _unchosen(call, inputs) if call.step is None else ()
    real = {k: t for k, t in named_tensors(batch) if k in inputs and numbers_of(t) is not None and is_dense(t)}
    zeros = {key: tensor for key, tensor in real.items() if tensor.is_floating_point() and not tensor.any()}
    if not zeros or len(zeros) == len(real) or call.step is not None:
        return unchosen
    news = {id(tensor): changed for tensor in zeros.values() if (changed := perturbed(tensor)) is not None}
    reached = partial(_reached, dict(call.task.model.named_parameters()))
    now, then = call.look(batch, reached), call.look(exchanged(batch, news), reached)
    beside = {name.rpartition(".")[0] for name in now}
    return *unchosen, *(name for name in then if name not in now and name.rpartition(".")[0] in beside)


def _unchosen(call: LossCall, inputs: Sequence[str]) -> tuple[str, ...]:
    """The members of lists of which some learn from this batch, and others only from another one: experts, say."""
    model, batch = call.task.model, call.task.batch
    kinds = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
    lists = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    reached, found = partial(_reached, parameters), list[str]()
    if not lists:
        return ()
    live, source = _members(lists, call.look(batch, reached)), torch.Generator().manual_seed(0)
    idle = [name for name in parameters if not _members(lists, [name]) <= live]
    given = [t for key, t in named_tensors(batch) if key in inputs and is_dense(t) and t.numel()]
    for _ in range(TRIES if idle and given else 0):
        places = {id(t): torch.randint(t.numel(), t.shape, generator=source).to(t.device) for t in given}
        others = _members(
            lists, call.look(exchanged(batch, {id(t): t.flatten()[places[id(t)]] for t in given}), reached)
        )
        homes = {home for home, _ in others - live} & {home for home, _ in live}
        found += [name for name in idle if homes & {home for home, _ in _members(lists, [name]) - live}]
    return tuple(dict.fromkeys(found))


def _members(lists: Sequence[str], names: Sequence[str]) -> set[tuple[str, str]]:
    """Lists and their members that hold some of these parameters."""
    inside = ((home, name.removeprefix(f"{home}.")) for home in lists for name in names if name.startswith(f"{home}."))
    return {(home, rest.partition(".")[0]) for home, rest in inside}


def _reached(parameters: dict[str, Tensor], outputs: Heard, terms: Terms) -> tuple[str, ...]:
    learning = {name: p for name, p in parameters.items() if p.requires_grad}
    found = torch.autograd.grad(terms["objective"], list(learning.values()), allow_unused=True)
    return tuple(name for name, g in zip(learning, found, strict=True) if g is not None and bool(g.any()))
