"""Samples in another order, or the first one exchanged: what of a batch has to turn, or to move, with them."""

from __future__ import annotations

from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pytest_overfit.diagnose.questions.model_calls import ModelCall, some_exchanged, where_it_arises
from pytest_overfit.diagnose.questions.torch_functions import TorchFunctions
from pytest_overfit.errors.asking import Questions, Refused


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


def is_a_sequence(call: ModelCall, batched: list[tuple[str, Tensor]], samples: int) -> bool:
    """Whether the model takes axis 0 for that of a sequence, a set or a graph, which it has alone.

    It puts an axis of one batch before it, makes a table of all with all, or gives a layer of sequences nothing else;
    it takes rows of numbers one by one; or it is given a sparse tensor.
    """
    if any(isinstance(leaf, Tensor) and leaf.layout != torch.strided for leaf in tree_leaves((call.args, call.kwargs))):
        return True
    found: list[bool] = []
    rows: list[Tensor] = []
    derived = {id(t): t for _, t in batched}  # what is made of them; kept, so that an id stays one tensor's
    wide = any(isinstance(m, nn.Linear) and m.out_features == samples for m in call.module.modules())

    def told(name: str, frame: FrameType, args: Any, kwargs: Any, out: Any, kept: bool) -> None:
        given = [t for t in tree_leaves((args, kwargs)) if id(t) in derived]
        for made in [t for t in tree_leaves(out) if given and isinstance(t, Tensor)]:
            derived[id(made)] = made
            found.append(any(made.shape == (1, *t.shape) and samples in t.shape[:2] for t in given))
            pairs = made.shape[:2] == (samples, samples) and (made.dim() == 2 or len(given) > 1) and not wide
            found.append(pairs and not any(t.shape[:2] == made.shape[:2] for t in given))
            if any(t.shape[0] == samples and made.numel() * samples == t.numel() for t in given[:1] if t.dim() == 2):
                rows.append(made)

    def entered(module: nn.Module, args: Any, kwargs: Any) -> None:
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.dim() > 1]
        found.append(any(samples in t.shape[:-1] and t.shape[:-1].numel() == samples for t in tensors[:1]))

    layers = [m for m in call.module.modules() if isinstance(m, (nn.RNNBase, nn.MultiheadAttention))]
    handles = [nn.Module.register_forward_pre_hook(m, entered, with_kwargs=True) for m in layers]
    try:
        with TorchFunctions(told, (), Questions()):
            call.again(lambda tensor: tensor)
    finally:
        for handle in handles:
            handle.remove()
    return any(found) or (len(rows) >= samples and all(t.dim() == 2 for _, t in batched))


def grows_alone(call: ModelCall, batched: list[tuple[str, Tensor]], base: list[Tensor], samples: int) -> list[bool]:
    """Of every output, whether axis 0 is the only one that grows with a sample more.

    Where the model takes no other number of samples: whether no other axis is as long, but by the width of a layer.
    """
    try:
        other = call.again(partial(some_exchanged, _one_more(batched)))
    except Refused:
        other = []
    if len(other) != len(base):
        wide = any(isinstance(m, nn.Linear) and m.out_features == samples for m in call.module.modules())
        return [wide or samples not in t.shape[1:] for t in base]
    return [b.shape == (samples + 1, *a.shape[1:]) for a, b in zip(base, other, strict=True)]


def takes_one_more(call: ModelCall, batched: list[tuple[str, Tensor]]) -> bool:
    """Whether the model takes a sample more: what has as many columns as rows has them by chance."""
    try:
        call.again(partial(some_exchanged, _one_more(batched)))
    except Refused:
        return False
    return True


def _one_more(batched: list[tuple[str, Tensor]]) -> dict[int, Tensor]:
    """By their ids, the tensors of a batch whose first sample stands at the end once more."""
    return {id(t): torch.cat([t.detach(), t.detach()[:1]]) for _, t in batched}


def compares_samples(call: ModelCall, batched: list[tuple[str, Tensor]], samples: int) -> bool:
    """Whether the model makes a table of all samples with all: one whose two axes grow with a sample more.

    A model that takes no other number of them may make one.
    """
    more, counts = _one_more(batched), list[int]()

    def told(name: str, frame: FrameType, args: Any, kwargs: Any, out: Any, kept: bool) -> None:
        counts[-1] += sum(t.shape[-2:] == (samples + 1,) * 2 for t in tree_leaves(out) if isinstance(t, Tensor))

    try:
        for news in ({}, more):
            counts.append(0)
            with TorchFunctions(told, (), Questions()):
                call.again(partial(some_exchanged, news))
    except Refused:
        return True
    return counts[1] > counts[0]


def by_its_place(call: ModelCall, batched: list[tuple[str, Tensor]], rows: list[int]) -> str:
    """The module in which a sample, which none of the others moves, gets other outputs at another place of the batch.

    Empty where none does, where axis 0 may be that of a sequence or of points: one sample has another answer at every
    place of it, as frames that are numbered have, and no other axis is one of which places move each other. And where
    a tensor of the model has a row for every place, or where something of the call cannot be turned around: a list of
    lengths, a sparse tensor.

    Args:
        rows: the outputs that have a row for every sample, and no other axis of samples.
    """
    samples = len(batched[0][1])
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
    base, other, changed = (call.again(partial(some_exchanged, new)) for new in ({}, turned, first))
    moved = [i for i in rows if not torch.equal(base[i][0], changed[i][0])]  # by their own sample
    if all(_as_turned(base[i], other[i]) for i in moved):
        return ""
    alike = call.again(partial(some_exchanged, {id(t): t.detach()[:1].expand_as(t).clone() for _, t in batched}))
    numbered = any(len(torch.unique(alike[i], dim=0)) == samples for i in moved)
    if numbered and not _mixes_places(call, batched, base, rows):
        return ""

    def unlike(before: Tensor, after: Tensor) -> bool:
        return before.dim() > 0 and before.shape[0] == samples and not _as_turned(before, after)

    return where_it_arises(call, lambda t: turned.get(id(t), t), unlike) or type(call.module).__name__


def _mixes_places(call: ModelCall, batched: list[tuple[str, Tensor]], base: list[Tensor], rows: list[int]) -> bool:
    """Whether places of axis 1 move each other, or an output that has none: that is the axis of a sequence, not 0."""
    for tensor in (t for _, t in batched if t.dim() in (2, 3) and t.shape[1] > 2):  # of images 1 is that of channels
        changed = tensor.detach().clone()
        changed[:, 0] = changed[:, -1] * 0.7 + 0.1 if tensor.is_floating_point() else changed[:, -1]
        other = call.again(partial(some_exchanged, {id(tensor): changed}))
        for before, after in ((base[i], other[i]) for i in rows):
            placed = before.dim() > 2 and before.shape[1] == tensor.shape[1]
            if before.shape == after.shape and not torch.equal(*((b[:, 1:] if placed else b) for b in (before, after))):
                return True
    return False


def _as_turned(before: Tensor, after: Tensor) -> bool:
    rounding = max(1e-3, 8 * torch.finfo(before.dtype).eps)
    size = float(before.abs().max()) if before.numel() else 0.0
    return torch.allclose(before.flip(0), after, rtol=rounding, atol=0.1 * rounding * size)
