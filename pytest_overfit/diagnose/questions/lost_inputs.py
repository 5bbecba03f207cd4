"""What of a batch is lost on its way to the outputs: fractions of its numbers, and the edges of its graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.pairs import LeftGraphs, WholeNumbers
from pytest_overfit.diagnose.questions.batch_numbers import is_whole
from pytest_overfit.diagnose.questions.model_calls import ModelCall
from pytest_overfit.diagnose.questions.tensors import dense_tensors, is_real
from pytest_overfit.errors.asking import Refused
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.influence import MOST_TENSORS
from pytest_overfit.run.loss_call import exchanged
from pytest_overfit.run.task import Heard, Terms

LEAST_LOST = 4  # times as many values as whole ones: fewer are a grid that is meant
ENDS = 2  # rows of an edge index: from, to


def lost(on: RunContext, base: list[Tensor], calls: list[ModelCall]) -> tuple[Any, ...]:
    """What is found of either, first one each; ``base``: what the model and its loss made of the batch as it is."""
    given = [tensor for call in calls for _, tensor in call.arguments(mapped=True)]
    found = (next(read_as_whole(on, base, given), None), next(left_graphs(on.task.batch), None))
    return tuple(each for each in found if each is not None)


def read_as_whole(on: RunContext, base: list[Tensor], given: list[Tensor]) -> Iterator[WholeNumbers]:
    """The tensors whose fractions can be left out, and no output and no term of the loss is another in any bit.

    What a model is ``given`` as it is has got there. Each of the others costs a forward pass, and a second one where
    the first changes nothing: another value has to be read.
    """
    for key, tensor in dense_tensors(on.task.batch)[:MOST_TENSORS]:
        if not (is_real(tensor) and tensor.numel()):
            continue
        if any(each.shape == tensor.shape and torch.equal(each, tensor) for each in given):
            continue
        whole = tensor.detach().trunc()
        values, left = (len(torch.unique(each)) for each in (tensor.detach(), whole))
        if values < LEAST_LOST * left or not bool(torch.isfinite(tensor).all()):
            continue
        raised = torch.where(tensor.detach() == whole, whole, whole + 1)  # or it is those places that are not read
        if _gives(on, tensor, whole, base) and not _gives(on, tensor, raised, base):
            yield WholeNumbers(key, values, left)


def _gives(on: RunContext, tensor: Tensor, other: Tensor, base: list[Tensor]) -> bool:
    """Whether a batch with another tensor in the place of one gives the same, bit for bit."""
    try:
        other = other.requires_grad_(tensor.requires_grad)
        found = numbers_made(*on.seeded(exchanged(on.task.batch, {id(tensor): other})))
    except Refused:
        return False
    return len(found) == len(base) and all(map(torch.equal, found, base))


def numbers_made(heard: Heard, terms: Terms) -> list[Tensor]:
    """All outputs and all terms of a call, without their graph."""
    return [each.detach() for _, each in heard] + [each.detach() for each in terms.values()]


def left_graphs(batch: Any) -> Iterator[LeftGraphs]:
    """Edges (2, E) that all go between the first nodes, as many as the largest graph has, and leave whole graphs out.

    ``owners`` (N,) has the graph of every node, in order. Edges are looked at beside every such tensor that they fit
    into. A graph without edges may be meant: some of them have to be there twice, which is what those of another
    graph come to, or to go from one graph to another.
    """
    whole = [(key, tensor.detach().cpu()) for key, tensor in dense_tensors(batch) if is_whole(tensor)]
    owners = [(key, tensor) for key, tensor in whole if _owns(tensor)]
    for key, edges in whole:
        if edges.dim() != ENDS or edges.shape[0] != ENDS or edges.shape[1] < ENDS or int(edges.min()) < 0:
            continue
        fitting = [(name, owner) for name, owner in owners if int(edges.max()) < len(owner)]
        found = [_left(key, edges, name, owner) for name, owner in fitting]
        if found and all(found):
            yield from (each for each in found[:1] if each is not None)


def _owns(tensor: Tensor) -> bool:
    """Whether it says of which graph each of several nodes is: 0, 0, 0, 1, 1, 2, ..."""
    if tensor.dim() != 1 or len(tensor) < ENDS or int(tensor[0]) != 0 or int(tensor[-1]) == 0:
        return False
    rises = tensor.diff()
    return bool(((rises == 0) | (rises == 1)).all()) and bool((rises == 0).any())


def _left(key: str, edges: Tensor, name: str, owner: Tensor) -> LeftGraphs | None:
    nodes = owner.bincount()
    has_edges = torch.zeros(len(nodes), dtype=torch.bool)
    has_edges[owner[edges].flatten()] = True
    left = int((~has_edges & (nodes > 1)).sum())
    if not left or int(edges.max()) >= int(nodes.max()):
        return None
    twice = edges.shape[1] - torch.unique(edges, dim=1).shape[1]
    across = int((owner[edges[0]] != owner[edges[1]]).sum())
    if not (twice or across):
        return None
    return LeftGraphs(key, name, edges.shape[1], len(nodes), left, int(edges.max()) + 1)
