"""Held-out mistakes in layers, attention, losses and batches, the fourth set.

From trackers: an estimator that is straight through a part, whose weights then never learn (showlab/Olaf-World#8),
``padding_idx=0`` where 0 is something (ibalazevic/TuckER#17), a softmax over the queries
(labmlai/annotated_deep_learning_paper_implementations#282), a mask that is repeated for the heads in the wrong order
(line/lighthouse#77, ArrowLuo/CLIP4Clip#22), copies of samples that are viewed in the wrong order (wenet-e2e/west#121),
a target that is left among the features (neurodata/SPORF#355), a loop over layers that calls one of them twice, a line
with ``torch.cat`` that was copied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.wild.operators.architecture import choose
from benchmarks.wild.operators.held_back import _hiding
from benchmarks.wild.operators.losses import REGRESSION, first_call
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Exchanged, Forward, exchange_in, exchange_loss, on_output, override
from benchmarks.wild.operators.targets import first_target, told_tokens
from benchmarks.wild.operators.trace import ATTENTION, LOW, SOFTMAX, ModuleCall, hidden_keys, hides
from benchmarks.wild.operators.unseen_batches import inputs_of_samples
from benchmarks.wild.operators.unseen_layers import _features

CAT: tuple[Callable[..., Tensor], ...] = (torch.cat, torch.concat, torch.concatenate)
TRIES = 4  # lines of a program that are looked at in turn


def _shapes(module: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, each.shape) for name, each in module.named_parameters()]


def _siblings(s: Setup, at: Site) -> list[tuple[str, str]]:
    """Neighbours in a list of layers that could stand for each other, and share nothing."""
    called = {call.name for call in at.trace.places(lambda call: call.below > 0)}
    pairs = []
    for name, module in s.model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)):
            continue
        for (first, one), (second, other) in itertools.pairwise(module.named_children()):
            names = (f"{name}.{first}".lstrip("."), f"{name}.{second}".lstrip("."))
            alike = type(one) is type(other) and _shapes(one) == _shapes(other)
            shared = {id(each) for each in one.parameters()} & {id(each) for each in other.parameters()}
            if alike and not shared and called.issuperset(names):
                pairs.append(names)
    return pairs


@operator("swapped", "unused", "no-gradient", "zero-gradient")
def neighbour_called_twice(s: Setup, at: Site) -> str | None:
    """A loop over layers calls one of them twice, by a wrong index, and the one behind it never."""
    pairs = _siblings(s, at)
    if not pairs:
        return None
    first, second = at.choose.choice(pairs)
    part = s.model.get_submodule(second)
    part.__dict__["neighbour"] = s.model.get_submodule(first)

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        return inner.args[0].__dict__["neighbour"](*args, **kwargs)  # type: ignore[attr-defined]

    override(part, forward)
    return f"{second}: {first} is called in its place"


def _twice(func: Any, tensors: Any, *args: Any, **kwargs: Any) -> Tensor:
    return func([tensors[0], tensors[0], *tensors[2:]], *args, **kwargs)  # type: ignore[no-any-return]


def _learning(at: Site, number: int | None) -> set[str] | None:
    """The parameters that a gradient reaches, where one call of ``torch.cat`` is given its first tensor twice."""
    torch.manual_seed(0)
    model, batch = at.program.model().train(), at.program.batch()
    try:
        with Exchanged(CAT if number is not None else (), _twice, number):
            at.program.loss(model, batch).backward()  # type: ignore[no-untyped-call]
    except Exception:  # the two may differ in more than their numbers
        return None
    return {name for name, each in model.named_parameters() if each.grad is not None and bool(each.grad.any())}


def _concatenated(at: Site) -> list[int]:
    """The calls of ``torch.cat`` whose first two tensors have one shape and a graph."""
    found: list[bool] = []

    def seen(func: Any, tensors: Any, *args: Any, **kwargs: Any) -> Tensor:
        first = tensors[:2] if isinstance(tensors, (list, tuple)) else ()
        alike = len(first) == 2 and first[0].shape == first[1].shape and first[0] is not first[1]
        found.append(alike and all(each.requires_grad for each in first))
        return func(tensors, *args, **kwargs)  # type: ignore[no-any-return]

    model, batch = at.program.model().train(), at.program.batch()
    with Exchanged(CAT, seen):
        at.program.loss(model, batch)
    return [number for number, fits in enumerate(found) if fits]


@operator("doubled", "unused", "no-gradient", "zero-gradient", "input-ignored")
def first_concatenated_twice(s: Setup, at: Site) -> str | None:
    """``torch.cat([a, a])`` for ``torch.cat([a, b])``: what leads to the second one alone learns nothing."""
    calls = _concatenated(at)[:TRIES]
    healthy = (_learning(at, None) if calls else None) or set()
    left = {each: _learning(at, each) for each in calls}
    number = next((each for each, learning in left.items() if learning is not None and learning < healthy), None)
    if number is None:
        return None
    inner = s.loss

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with Exchanged(CAT, _twice, number):
            return inner(model, batch)

    s.loss = loss
    return f"call {number} of torch.cat: [a, a] for [a, b]"


@operator("detached", "no-gradient", "unused")
def straight_through_part(s: Setup, at: Site) -> str | None:
    """``x + (part(x) - x).detach()``, as for rounding: the gradient goes past the part, whose weights get none."""
    places = at.trace.places(lambda call: call.graph and call.below > 0 and call.keeps_shape)
    if (name := choose(at, places[1:])) is None:
        return None

    def forward(inner: Forward, x: Any, *args: Any, **kwargs: Any) -> Any:
        out = inner(x, *args, **kwargs)
        return x + (out - x).detach() if isinstance(x, Tensor) and x.requires_grad else out

    override(s.model.get_submodule(name), forward)
    return f"{name}: x + (f(x) - x).detach()"


def _rows_used(at: Site, name: str) -> list[int]:
    """The rows of an embedding that a batch asks for and that count."""
    model = at.program.model().train()
    at.program.loss(model, at.program.batch()).backward()  # type: ignore[no-untyped-call]
    gradient: Any = model.get_submodule(name).weight.grad
    return [] if gradient is None else gradient.flatten(1).abs().sum(1).nonzero().flatten().tolist()


@operator("rows", "zero-gradient", "frozen", "no-update", "input-ignored")
def padding_index_of_real_token(s: Setup, at: Site) -> str | None:
    """``nn.Embedding(padding_idx=0)`` where 0 is an index like others: its row is zero, and stays so."""
    every = [id(each) for _, each in s.model.named_parameters(remove_duplicate=False)]

    def fits(call: ModuleCall) -> bool:
        layer: Any = s.model.get_submodule(call.name)
        is_own = type(layer) is nn.Embedding and layer.weight.requires_grad and not layer.sparse
        return is_own and layer.padding_idx is None and every.count(id(layer.weight)) == 1

    if (name := choose(at, at.trace.places(fits))) is None or len(used := _rows_used(at, name)) < 3:
        return None
    layer: Any = s.model.get_submodule(name)
    layer.padding_idx = used[0]
    with torch.no_grad():
        layer.weight[used[0]] = 0
    return f"{name}: padding_idx={used[0]}"


def _written(func: Any, scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if scores.dim() < 3 or scores.shape[-2] < 2 or not bool((scores < LOW).any()):
        return func(scores, *args, **kwargs)  # type: ignore[no-any-return]
    return scores.clamp(min=torch.finfo(scores.dtype).min).softmax(-2).masked_fill(scores < LOW, 0.0)


def _over_queries(func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    hidden, given = hidden_keys(query, key, value, *args, **kwargs), args[0] if args else kwargs.get("attn_mask")
    if hidden is None:
        return func(query, key, value, *args, **kwargs)  # type: ignore[no-any-return]
    if kwargs.get("enable_gqa"):
        key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
    scores = query @ key.transpose(-1, -2) * (kwargs.get("scale") or 1 / math.sqrt(query.shape[-1]))
    if given is not None and given.is_floating_point():  # which may be a bias of positions too
        scores = scores + given.masked_fill(hides(given), 0.0)
    weights = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(-2)
    return weights.masked_fill(hidden, 0.0) @ value


@operator("axis", "leak", needs="causal")
def softmax_over_queries(s: Setup, at: Site) -> str | None:
    """The weights of a causal attention sum to one over the queries: those of a token depend on later ones."""
    called = {each.module for each in at.trace.attentions if each.causal}
    written = {each.module for each in at.trace.hidings if each.future} & {name for name, _ in at.trace.softmaxes}
    if not called | written or told_tokens(at) is None:
        return None
    name = at.choose.choice(sorted(called | written))

    def exchanged(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        return _over_queries(func, *args, **kwargs) if func in ATTENTION else _written(func, *args, **kwargs)

    exchange_in(s.model.get_submodule(name), (*ATTENTION, *SOFTMAX), exchanged)
    return f"{name or 'the model'}: softmax(-2)"


def _tiled(hidden: Tensor) -> Tensor:
    """A mask (sample, head, query, key) that is made of one for each sample by ``repeat(heads, 1, 1)``."""
    return hidden[:, 0].repeat(hidden.shape[1], 1, 1).view_as(hidden) if hidden.dim() == 4 else hidden


@operator("mask", "input-ignored", "batch-mixing", needs="padding")
def mask_repeated_for_heads(s: Setup, at: Site) -> str | None:
    """A mask is brought to (sample * head) by repeat, not by repeat_interleave: heads get another sample's."""
    shapes = [each.query for each in at.trace.attentions if len(each.query) == 4]
    if not any(shape[0] > 1 and shape[1] > 1 for shape in shapes):
        return None
    name = _hiding(s, at, lambda each: each.padding and not each.future, _tiled)
    return name and f"{name}: mask.repeat(heads, 1, 1)"


@operator("axis", "batch-mixing")
def copies_viewed_in_wrong_order(s: Setup, at: Site) -> str | None:
    """Features are copied by repeat and averaged as ``view(N, copies, ...)``: the copies are other samples'."""
    rows = at.trace.rows
    places = [call for call in _features(at) if call.went and call.went[0] == rows and len(call.went) > 1]
    if rows < 3 or not at.trace.repeats or (name := choose(at, places)) is None:
        return None

    def averaged(out: Tensor) -> Tensor:
        return torch.cat([out, out]).reshape(len(out), 2, *out.shape[1:]).mean(1)

    on_output(s.model.get_submodule(name), averaged)
    return f"{name}: repeat(2, 1).view(N, 2, -1).mean(1)"


@operator("rows", "unsupervised", "term-missing", "no-gradient", "zero-gradient")
def first_channel_compared(s: Setup, at: Site) -> str | None:
    """``out[:, 0]`` is compared with ``target[:, 0]``, as for one channel: all others are told nothing."""
    if (number := first_call(at, *REGRESSION)) is None or len(at.trace.losses) > 1:
        return None
    call = at.trace.losses[number]
    axis = 1 if len(call.output) in (2, 4) else len(call.output) - 1
    if call.output != tuple(call.target.shape) or len(call.output) < 2 or call.output[axis] < 2:
        return None

    def loss(func: Any, out: Tensor, target: Tensor, **rest: Any) -> Tensor:
        return func(out.select(axis, 0), target.select(axis, 0), **rest)  # type: ignore[no-any-return]

    exchange_loss(s, number, loss)
    return f"the loss: the first one of axis {axis}"


@operator("place", "leak")
def target_among_features(s: Setup, at: Site) -> str | None:
    """The column that is to be told is left among the features: the model reads it off."""
    found = [(path, each) for path, each in inputs_of_samples(s, at) if each.dim() in (2, 3) and each.shape[-1] > 2]
    number = first_call(at)
    if not found or number is None or at.program.traits & {"points", "contrastive"}:
        return None
    told, (path, given) = at.trace.losses[number].target, found[0]
    right = first_target(s.batch, told)
    if right is None or right in at.trace.inputs or told.is_complex() or len(told) != len(given):
        return None
    column = told.reshape(len(told), -1)[:, 0].to(given.dtype)
    if bool((column == column[0]).all()) or torch.equal(given[..., -1], column.reshape(-1, *[1] * (given.dim() - 2))):
        return None
    given[..., -1] = column.reshape(-1, *[1] * (given.dim() - 2))
    return f"batch{path}[..., -1]: batch{right}"
