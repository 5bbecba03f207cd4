"""Samples in another order, or the first one exchanged: what of a batch has to turn, or to move, with them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pytest_overfit.diagnose.questions.model_calls import ModelCall, where_it_arises


def first_exchanged(tensor: Tensor) -> Tensor:
    """A copy whose first sample is another one, and where it is of numbers not exactly that."""
    changed = tensor.detach().clone()
    changed[0] = tensor[tensor.shape[0] // 2] if tensor.shape[0] > 1 else tensor[0]
    if tensor.is_floating_point():
        changed[0] = changed[0] * 0.7 + 0.1
    return changed


def equivariant(call: ModelCall, batched: list[tuple[str, Tensor]], samples: int) -> bool:
    """Whether turning the order of the samples only turns the order of the outputs."""
    turned = {id(t): t.detach().flip(0) for _, t in batched}
    base, other = call.again(), call.again(lambda t: turned.get(id(t), t))
    return all(not (a.dim() and a.shape[0] == samples) or _as_turned(a, b) for a, b in zip(base, other, strict=False))


def by_its_place(call: ModelCall, batched: list[tuple[str, Tensor]], samples: int) -> str:
    """The module in which a sample, which none of the others moves, gets other outputs at another place of the batch.

    Empty where none does, where axis 0 may be that of a sequence or of points, where a tensor of the model has a row
    for every place, and where something of the call cannot be turned around: a list of lengths, a sparse tensor.
    """
    known, held = {id(t) for _, t in batched}, (*call.module.parameters(), *call.module.buffers())
    given = tree_leaves((call.args, call.kwargs))
    if not all(id(leaf) in known or leaf is None or type(leaf) is bool for leaf in given):
        return ""
    if not any(t.dim() > 2 or (t.dim() == 2 and not t.is_floating_point()) for _, t in batched):
        return ""
    if any(not t.is_nested and t.dim() and t.shape[0] == samples for t in held):
        return ""
    turned = {id(t): t.detach().flip(0) for _, t in batched}
    first = {id(t): first_exchanged(t) for _, t in batched}
    base, other, changed = (call.again(partial(_exchanged, new)) for new in ({}, turned, first))
    rows = [i for i, t in enumerate(base) if t.dim() and t.shape[0] == samples]
    moved = [i for i in rows if not torch.equal(base[i][0], changed[i][0])]  # by their own sample
    if all(_as_turned(base[i], other[i]) for i in moved):
        return ""

    def unlike(before: Tensor, after: Tensor) -> bool:
        return before.dim() > 0 and before.shape[0] == samples and not _as_turned(before, after)

    return where_it_arises(call, lambda t: turned.get(id(t), t), unlike) or type(call.module).__name__


def _exchanged(news: dict[int, Tensor], tensor: Tensor) -> Tensor:
    return news.get(id(tensor), tensor)


def _as_turned(before: Tensor, after: Tensor) -> bool:
    rounding = max(1e-3, 8 * torch.finfo(before.dtype).eps)
    size = float(before.abs().max()) if before.numel() else 0.0
    return torch.allclose(before.flip(0), after, rtol=rounding, atol=0.1 * rounding * size)
