"""Held-out mistakes in what a model reads of a batch, and in its attention, the third set.

From trackers and forums: ``attention(q, k, k)``, heads that are indexed away, ``torch.roll`` along the batch, a mask
that the evaluation forgets, tokens that are masked at random in evaluation too, timesteps and conditions that are all
zero, ``range(length - 1)``, tokens that are masked in place, rows that are put back by the order that shuffled them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from benchmarks.wild.operators.architecture import choose
from benchmarks.wild.operators.data import float_inputs
from benchmarks.wild.operators.held_back import _per_sample, beside
from benchmarks.wild.operators.masks import on_mask
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Forward, exchange_in, on_output, override
from benchmarks.wild.operators.trace import ATTENTION, leaves
from benchmarks.wild.operators.unseen_batches import _changed
from benchmarks.wild.operators.unseen_layers import _features


def _attending(at: Site, *, heads: bool = False) -> str | None:
    """A module that calls torch's attention; with several heads."""
    calls = at.trace.attentions
    names = sorted({each.module for each in calls if not heads or (len(each.query) == 4 and each.query[1] > 1)})
    return at.choose.choice(names) if names else None


@operator("swapped", "unused", "no-gradient", "zero-gradient")
def keys_for_values(s: Setup, at: Site) -> str | None:
    """An attention is called with its keys for values too: what the values are made of learns nothing."""
    if (name := _attending(at)) is None:
        return None

    def called(func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return func(query, key, key if key.shape == value.shape else value, *args, **kwargs)  # type: ignore[no-any-return]

    exchange_in(s.model.get_submodule(name), ATTENTION, called)
    return f"{name or 'the model'}: attention(q, k, k)"


@operator("rows", "unused", "no-gradient", "zero-gradient")
def first_head_for_all(s: Setup, at: Site) -> str | None:
    """Of the heads of an attention the first one's output is used for all of them."""
    if (name := _attending(at, heads=True)) is None:
        return None

    def called(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = func(*args, **kwargs)
        return out[:, :1].expand_as(out) if out.dim() == 4 else out

    exchange_in(s.model.get_submodule(name), ATTENTION, called)
    return f"{name or 'the model'}: out[:, :1] for all heads"


@operator("axis", "batch-mixing")
def token_shift_along_batch(s: Setup, at: Site) -> str | None:
    """Half of the channels are to come from the token before, and come from the sample before: ``roll(1, 0)``."""
    places = [call for call in _features(at) if len(call.went or ()) in (2, 3) and (call.went or (0,))[-1] > 1]
    if at.trace.rows < 2 or not at.trace.repeats or (name := choose(at, places)) is None:
        return None

    def shifted(out: Tensor) -> Tensor:
        half = out.shape[-1] // 2
        return torch.cat([out[..., :half].roll(1, 0), out[..., half:]], -1)

    on_output(s.model.get_submodule(name), shifted)
    return f"{name}: x.roll(1, 0)"


@operator("mask", "stochastic", "mode-gap")
def tokens_hidden_at_random(s: Setup, at: Site) -> str | None:
    """Some of the tokens are hidden at random, as an augmentation, in evaluation too."""
    if not at.trace.repeats:
        return None

    def hidden(mask: Tensor, padding: bool) -> Tensor:
        drawn = torch.rand(mask.shape) < 0.15
        return torch.where(drawn, torch.full_like(mask, int(padding)), mask)

    name = on_mask(s, at, hidden)
    return name and f"{name}: 15% hidden at random in every call"


@operator("mode", "mode-gap", "input-ignored")
def mask_forgotten_in_evaluation(s: Setup, at: Site) -> str | None:
    """The mask is handed over in training alone: in evaluation padding is read."""
    if not at.trace.masks:
        return None
    name = at.trace.masks[0]

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        model: nn.Module = inner.args[0]  # type: ignore[attr-defined]
        if not model.training and kwargs.get(name) is not None:
            kwargs[name] = torch.full_like(kwargs[name], int("padding" not in name))
        return inner(*args, **kwargs)

    override(s.model, forward)
    return f"{name}: in training alone"


def _condition(value: Tensor, told: list[Tensor]) -> bool:
    """Whether an input is no mask, and nothing that is told."""
    if value.dtype == torch.bool or value.is_complex() or not value.dim() or set(value.flatten().tolist()) <= {0, 1}:
        return False
    return not any(torch.equal(each, value.flatten().double()) for each in told)


@operator("forgotten", "input-ignored")
def second_input_all_zero(s: Setup, at: Site) -> str | None:
    """One of several inputs, such as a timestep, a position or a condition, is zero in every call."""
    if at.program.traits & {"graph"}:
        return None
    told = [call.target.flatten().double() for call in at.trace.losses if not call.target.is_complex()]
    fits = [path for path, each in leaves(s.batch) if path in at.trace.inputs[1:] and _condition(each, told)]
    if not fits:
        return None
    chosen, inner = fits[0], s.loss

    def zeroed(path: Any, value: Any) -> Any:
        return torch.zeros_like(value) if _pytree.keystr(path) == chosen else value

    s.loss = lambda model, batch: inner(model, _pytree.tree_map_with_path(zeroed, batch))
    return f"batch{chosen}: zeros"


@operator("count", "input-ignored")
def last_step_not_read(s: Setup, at: Site) -> str | None:
    """A loop over time ends one step early: the last one of a series is never read."""
    if at.program.traits & {"graph", "points"}:
        return None
    found = [(path, each) for path, each in float_inputs(s, at) if each.dim() == 3 and each.shape[1] > 2]
    if not found:
        return None
    path, given = found[0]
    _changed(s, given.shape, lambda x: torch.cat([x[:, :-1], torch.zeros_like(x[:, -1:])], 1))
    return f"batch{path}: range(length - 1)"


@operator("place", "batch-changes", "degenerate-batch", "label-conflict", "input-ignored", needs="ids")
def masked_in_place(s: Setup, at: Site) -> str | None:
    """Tokens are masked in the batch itself, a tenth in every step: in the end there is nothing left to read."""
    if at.program.traits & {"graph"}:
        return None
    ids = [(path, each) for path, each in leaves(s.batch) if path in at.trace.inputs and each.dim() == 2]
    fits = [(path, each) for path, each in ids if each.dtype == torch.long and len(set(each.flatten().tolist())) > 2]
    if not fits:
        return None
    path, given = fits[0]
    token, inner = int(given.min()), s.loss

    def loss(model: nn.Module, batch: Any) -> Tensor:
        if model.training:
            tokens = dict(leaves(batch))[path]
            tokens.masked_fill_(torch.rand(tokens.shape) < 0.1, token)
        return inner(model, batch)

    s.loss = loss
    return f"batch{path}: [rand < 0.1] = {token} in every step"


@operator("order", "target-mismatch", "batch-mixing", "stochastic")
def put_back_by_same_order(s: Setup, at: Site) -> str | None:
    """The model shuffles its samples, and puts its outputs back by the same order, not by the inverse one."""
    whole = next((call for call in at.trace.modules if not call.name), None)
    rows, read = at.trace.rows, at.trace.inputs
    if whole is None or not whole.went or whole.went[0] != rows or rows < 3 or not read or at.trace.more is None:
        return None
    if "graph" in at.program.traits or all(torch.equal(each, each[:1].expand_as(each)) for each in beside(s, at)):
        return None

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        order = torch.randperm(rows)

        def shuffled(value: Any) -> Any:
            return value[order] if _per_sample(value, at) and not value.requires_grad else value

        return inner(*_pytree.tree_map(shuffled, args), **_pytree.tree_map(shuffled, kwargs))[order]

    override(s.model, forward)
    return "the model: f(x[order])[order]"
