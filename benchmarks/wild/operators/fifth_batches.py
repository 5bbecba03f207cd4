"""Held-out mistakes in what a model reads of a batch, the fifth set: conditions, views, graphs, tokens.

From trackers and forums: one timestep for a whole batch (Stability-AI/StableCascade#142), a timestep between 0 and 1
for an embedding of 0 to 1000 (ArchiMickey/Just-a-DiT#9), ids that are clamped to a vocabulary so that nothing is out of
range, a picture in grey whose one channel is copied, noise that is added to the batch itself, one view of two that is
read twice, edges of several graphs that all point into the first one (ruizhang-ai/GMCF_Neural_Graph_Matching_based_
Collaborative_Filtering#6), messages that overwrite each other where they should add up (PaddlePaddle/Paddle#17952).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from benchmarks.wild.operators.architecture import choose
from benchmarks.wild.operators.data import float_inputs
from benchmarks.wild.operators.fourth import _rows_used
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Exchanged, Forward, override
from benchmarks.wild.operators.third_batches import _condition
from benchmarks.wild.operators.trace import ModuleCall, leaves
from benchmarks.wild.operators.unseen_batches import _changed

ADDING: tuple[Callable[..., Tensor], ...] = (
    Tensor.scatter_add_, Tensor.scatter_add, Tensor.index_add_, Tensor.index_add, torch.scatter_add, torch.index_add,
)  # fmt: skip


@operator("rows", "input-ignored", "label-conflict", "zero-gradient")
def ids_clamped_to_other_vocabulary(s: Setup, at: Site) -> str | None:
    """Ids are clamped before the embedding, so that none is out of range: the upper half of them is one id."""

    def fits(call: ModuleCall) -> bool:
        layer: Any = s.model.get_submodule(call.name)
        return type(layer) is nn.Embedding and layer.weight.requires_grad and not layer.sparse

    if (name := choose(at, at.trace.places(fits))) is None or len(used := _rows_used(at, name)) < 4:
        return None
    limit = used[(len(used) - 1) // 2]
    override(s.model.get_submodule(name), lambda inner, ids: inner(ids.clamp(max=limit)))
    return f"{name}: ids.clamp(max={limit})"


def _conditions(s: Setup, at: Site) -> list[tuple[str, Tensor]]:
    """Inputs beside the first one with a row for each sample, which is not the same for all."""
    if at.program.traits & {"graph", "points", "contrastive"}:
        return []
    told = [call.target.flatten().double() for call in at.trace.losses if not call.target.is_complex()]
    found = [(path, each) for path, each in leaves(s.batch) if path in at.trace.inputs[1:] and _condition(each, told)]
    read = [each.shape for path, each in leaves(s.batch) if path in at.trace.inputs[:1]]
    found = [(path, each) for path, each in found if each.shape not in read and "label" not in path]
    return [(path, each) for path, each in found if len(each) == at.trace.rows and bool((each != each[:1]).any())]


def _given(s: Setup, chosen: str, change: Callable[[Tensor], Tensor]) -> None:
    """A loss that hands another tensor over in place of one of the batch."""
    inner = s.loss

    def changed(path: Any, value: Any) -> Any:
        return change(value) if _pytree.keystr(path) == chosen else value

    s.loss = lambda model, batch: inner(model, _pytree.tree_map_with_path(changed, batch))


@operator("rows", "input-ignored", "batch-mixing", "label-conflict")
def condition_of_first_for_all(s: Setup, at: Site) -> str | None:
    """The timestep, or another condition, of the first sample is handed over for all of them."""
    found = _conditions(s, at)
    if not found:
        return None
    path, _ = at.choose.choice(found)
    _given(s, path, lambda value: value[:1].expand_as(value))
    return f"batch{path}: t[:1].expand(len(x))"


@operator("scale", "input-ignored", "input-scale", needs="image")
def timesteps_between_zero_and_one(s: Setup, at: Site) -> str | None:
    """Timesteps are divided by their number, and the embedding has the frequencies for 0 to 1000: all are alike."""
    found = [(path, each) for path, each in _conditions(s, at) if each.dim() == 1 and float(each.max()) > 50]
    if not found:
        return None
    path, _ = found[0]
    _given(s, path, lambda value: value / 1000)
    return f"batch{path}: t / 1000"


@operator("swapped", "input-ignored", "label-conflict")
def first_channel_for_all(s: Setup, at: Site) -> str | None:
    """A picture, or a series, is read as grey and its one channel copied: all others are never read."""
    found = [(path, each) for path, each in float_inputs(s, at) if each.dim() > 2 and "graph" not in at.program.traits]
    sizes = [(path, each, 1 if each.dim() > 3 else each.dim() - 1) for path, each in found]
    sizes = [(path, each, axis) for path, each, axis in sizes if 1 < each.shape[axis] < 65]
    if not sizes or at.program.traits & {"points", "equivariant"}:
        return None
    path, given, axis = sizes[0]
    _changed(s, given.shape, lambda x: x.narrow(axis, 0, 1).expand_as(x))
    return f"batch{path}: its first channel for all {given.shape[axis]}"


@operator("place", "batch-changes", "stochastic", "drift")
def noise_added_in_place(s: Setup, at: Site) -> str | None:
    """An augmentation adds noise with ``x += noise``, to the batch itself: in every step there is more of it."""
    found, inner = [(path, each) for path, each in float_inputs(s, at) if each.dim() > 1], s.loss
    if not found or found[0][1].is_complex():
        return None
    path, given = found[0]
    size = 0.2 * float(given.std())

    def loss(model: nn.Module, batch: Any) -> Tensor:
        if model.training:
            read = dict(leaves(batch))[path]  # a run may hold a copy
            read.add_(torch.randn_like(read), alpha=size)
        return inner(model, batch)

    s.loss = loss
    return f"batch{path}: x += noise"


def _shapes(nest: Any) -> list[Any]:
    return [each.shape if isinstance(each, Tensor) else each for each in _pytree.tree_leaves(nest)]


def _called_twice(at: Site) -> list[str]:
    """The modules that the loss itself calls more than once, with arguments of one shape that are not the same."""
    model, batch, depth = at.program.model().train(), at.program.batch(), [0]
    calls: dict[str, list[Any]] = {}

    def enter(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if not depth[0]:
                calls.setdefault(name, []).append((args, kwargs))
            depth[0] += 1

        return hook

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        depth[0] -= 1

    for name, module in model.named_modules():
        module.register_forward_pre_hook(enter(name), with_kwargs=True)
        module.register_forward_hook(leave)
    at.program.loss(model, batch)
    twice = {name: each for name, each in calls.items() if len(each) > 1 and _shapes(each[0]) == _shapes(each[1])}
    return [name for name, each in twice.items() if _differ(each[0], each[1])]


def _differ(one: Any, other: Any) -> bool:
    pairs = zip(_pytree.tree_leaves(one), _pytree.tree_leaves(other), strict=True)
    return any(isinstance(a, Tensor) and not a.requires_grad and not torch.equal(a, b) for a, b in pairs)


@operator("swapped", "input-ignored", "leak", "vacuous", "unsupervised")
def first_view_read_twice(s: Setup, at: Site) -> str | None:
    """``f(x1), f(x1)`` for ``f(x1), f(x2)``: the second view, or the other one of a pair, is never read."""
    places = _called_twice(at)
    if not places:
        return None
    name, inner = places[0], s.loss

    def forward(call: Forward, *args: Any, **kwargs: Any) -> Any:
        part = call.args[0]  # type: ignore[attr-defined]
        first = part.__dict__.setdefault("first", (args, kwargs))
        args, kwargs = first if _shapes(first) == _shapes((args, kwargs)) else (args, kwargs)
        return call(*args, **kwargs)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        value = inner(model, batch)
        model.get_submodule(name).__dict__.pop("first", None)
        return value

    override(s.model.get_submodule(name), forward)
    s.loss = loss
    return f"{name or 'the model'}: f(x1), f(x1)"


def _overwritten(func: Any, kept: Tensor, dim: int, index: Tensor, source: Tensor, **rest: Any) -> Tensor:
    """In place of a sum of features: what came last."""
    if source.dim() < 2 or not source.is_floating_point():
        return func(kept, dim, index, source, **rest)  # type: ignore[no-any-return]
    if func in (Tensor.index_add_, Tensor.index_add, torch.index_add):
        return kept.index_copy(dim, index, source)
    return kept.scatter(dim, index, source)


@operator("swapped", "input-ignored", "wrong-backward", "unused", "zero-gradient", needs="graph")
def messages_overwritten(s: Setup, at: Site) -> str | None:
    """``out[index] = messages`` for ``out.index_add(...)``: of a node's neighbours one alone is heard."""
    found: list[bool] = []

    def seen(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        found.append(isinstance(args[-1], Tensor) and args[-1].requires_grad and args[-1].dim() > 1)
        return func(*args, **kwargs)  # type: ignore[no-any-return]

    with Exchanged(ADDING, seen):
        at.program.loss(at.program.model().train(), at.program.batch())
    if not any(found):
        return None
    inner = s.loss

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with Exchanged(ADDING, _overwritten):
            return inner(model, batch)

    s.loss = loss
    return "the model: out[index] = messages"


@operator("rows", "input-ignored", "batch-mixing", needs="graph")
def edges_without_offset(s: Setup, at: Site) -> str | None:
    """Graphs are put into one batch, and their edges are not shifted by the nodes before: all lie in the first one."""
    edges, graph = getattr(s.batch, "edge_index", None), getattr(s.batch, "batch", None)
    if not isinstance(edges, Tensor) or not isinstance(graph, Tensor) or int(graph.max()) < 1:
        return None
    first = torch.searchsorted(graph, graph)  # of the nodes of the same graph
    s.batch.edge_index = edges - first[edges]
    return "batch.edge_index: without the offsets of the graphs"
