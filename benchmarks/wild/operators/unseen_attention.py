"""Held-out mistakes in attention, the second set: its mask, its scale, its dropout, its gradient.

From trackers and forums: a mask that is applied after the softmax, one layer that gets none, masks of past and future
that leave a token itself alone, ``dim_head ** 0.5`` for ``** -0.5``, ``dropout_p`` of torch's attention, which knows no
evaluation, attention weights that are kept detached for a picture and then used, a softmax of its own whose maximum is
over the wrong axis.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.wild.operators.held_back import _hiding
from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import exchange_in
from benchmarks.wild.operators.trace import ATTENTION, SOFTMAX, hidden_keys, hides


def attending(at: Site, *, hiding: bool = False) -> list[str]:
    """The modules that call torch's attention; with ``hiding`` those that hide padding or the future in it."""
    names = {each.module for each in at.trace.attentions}
    hidden = {each.module for each in at.trace.hidings}
    return sorted(names & hidden if hiding else names)


def _written_out(
    query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, given: Tensor | None, rest: Any
) -> Tensor:
    """Attention whose mask is applied to the weights, after the softmax."""
    if rest.get("enable_gqa"):
        key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
    scores = query @ key.transpose(-1, -2) * (rest.get("scale") or 1 / math.sqrt(query.shape[-1]))
    if given is not None and given.is_floating_point():  # which may be a bias of positions too
        scores = scores + given.masked_fill(hides(given), 0.0)
    weights = scores.softmax(-1)
    return (weights if hidden is None else weights.masked_fill(hidden, 0.0)) @ value


@operator("mask", "leak", "input-ignored")
def mask_after_softmax(s: Setup, at: Site) -> str | None:
    """The mask is applied to the weights after the softmax: what is hidden still takes its share of their sum."""
    places = attending(at, hiding=True)
    if not places:
        return None
    name = at.choose.choice(places)

    def called(func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        hidden = hidden_keys(query, key, value, *args, **kwargs)
        return _written_out(query, key, value, hidden, args[0] if args else kwargs.get("attn_mask"), kwargs)

    exchange_in(s.model.get_submodule(name), ATTENTION, called)
    return f"{name or 'the model'}: softmax, then the mask"


@operator("mask", "input-ignored", needs="padding")
def mask_not_handed_to_layer(s: Setup, at: Site) -> str | None:
    """One of the attentions is called without the mask of padding that the others get."""
    name = _hiding(s, at, lambda each: each.padding and not each.future, torch.zeros_like)
    return name and f"{name}: no mask of padding"


@operator("mask", "input-ignored", "zero-gradient")
def attention_sees_itself_alone(s: Setup, at: Site) -> str | None:
    """Two masks of one attention, of past and of future, leave each token itself: queries and keys decide nothing."""

    def alone(hidden: Tensor) -> Tensor:
        size = hidden.shape[-1]
        return hidden | ~torch.eye(size, dtype=torch.bool) if hidden.shape[-2] == size else hidden

    name = _hiding(s, at, lambda each: each.future, alone)
    return name and f"{name}: tril & triu"


@operator("mode", "stochastic", "mode-gap")
def attention_dropout_always_on(s: Setup, at: Site) -> str | None:
    """``scaled_dot_product_attention(dropout_p=0.3)`` without a look at self.training: on in evaluation too."""
    places = attending(at)
    if not places or not at.trace.repeats:
        return None
    name = at.choose.choice(places)

    def called(func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("dropout_p", None)
        rest = {"is_causal": args[2]} if len(args) > 2 else {}
        return func(query, key, value, *args[:1], dropout_p=0.3, **rest, **kwargs)  # type: ignore[no-any-return]

    exchange_in(s.model.get_submodule(name), ATTENTION, called)
    return f"{name or 'the model'}: dropout_p=0.3"


@operator("scale", "saturation", "zero-gradient", "gradient-explosion")
def scores_multiplied(s: Setup, at: Site) -> str | None:
    """The scores of the attentions are multiplied by the root of their width in place of divided."""
    places = attending(at)
    for name in places:

        def called(func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return func(query, key, value, *args, **{**kwargs, "scale": query.shape[-1] ** 0.5})  # type: ignore[no-any-return]

        exchange_in(s.model.get_submodule(name), ATTENTION, called)
    return f"{places[0] or 'the model'} and others: dim_head ** 0.5" if places else None


@operator("detached", "no-gradient", "zero-gradient")
def attention_weights_detached(s: Setup, at: Site) -> str | None:
    """The weights of an attention are detached, as for a picture, and go on: queries and keys learn nothing."""
    written = sorted({name for name, shape in at.trace.softmaxes if len(shape) > 2})
    places = [*attending(at), *(name for name in written if name)]
    if not places:
        return None
    name = at.choose.choice(places)

    def detached(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        if func in ATTENTION:
            query, key, *others = args
            return func(query.detach(), key.detach(), *others, **kwargs)  # type: ignore[no-any-return]
        return func(*args, **kwargs).detach()  # type: ignore[no-any-return]

    exchange_in(s.model.get_submodule(name), (*ATTENTION, *SOFTMAX), detached)
    return f"{name or 'the model'}: weights.detach()"


@operator("axis", "batch-mixing")
def maximum_over_batch(s: Setup, at: Site) -> str | None:
    """A softmax that is written out subtracts the maximum over the samples: another number from key to key."""
    places = at.trace.mixed_softmaxes()
    if not places:
        return None
    name = at.choose.choice(places)

    def written(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        dim = args[0] if args else kwargs["dim"]
        return F.softmax(x - x.amax(0, keepdim=True), dim)

    exchange_in(s.model.get_submodule(name), SOFTMAX, written, at=0)
    return f"{name or 'the model'}: x - x.amax(0)"
