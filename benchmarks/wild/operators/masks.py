"""Mistakes with masks: of padding, and of what is to come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.wild.operators.operator import Setup, Site, operator
from benchmarks.wild.operators.rewrite import Forward, exchange_in, override
from benchmarks.wild.operators.targets import told_tokens
from benchmarks.wild.operators.trace import ATTENTION, FILLS, filled_scores, hidden_keys, hides


def on_mask(s: Setup, at: Site, change: Callable[[Tensor, bool], Tensor]) -> str | None:
    """The model's forward with another mask than it is given; ``change`` is told whether its 1 stands for padding."""
    if not at.trace.masks:
        return None
    name = at.trace.masks[0]

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get(name)
        return inner(*args, **({**kwargs, name: change(mask, "padding" in name)} if mask is not None else kwargs))

    override(s.model, forward)
    return name


@operator("mask", "input-ignored")
def mask_hides_nothing(s: Setup, at: Site) -> str | None:
    """The model gets a mask under which every token counts: padding is read."""
    name = on_mask(s, at, lambda mask, padding: torch.zeros_like(mask) if padding else torch.ones_like(mask))
    return name and f"{name}: hides nothing"


@operator("mask", "input-ignored")
def mask_inverted(s: Setup, at: Site) -> str | None:
    """The model gets a mask that is 1 where it should be 0."""
    name = on_mask(s, at, lambda mask, padding: (1 - mask.long()).to(mask.dtype))
    return name and f"{name}: inverted"


@operator("mask", "input-ignored")
def mask_on_the_wrong_side(s: Setup, at: Site) -> str | None:
    """The mask is for padding on the other side."""
    name = on_mask(s, at, lambda mask, padding: mask.flip(-1))
    return name and f"{name}: of the other side"


def exchange_hidden(module: nn.Module, change: Callable[[Tensor], Tensor], *, as_numbers: bool = False) -> None:
    """A subclass whose attention, called or written out, hides other scores.

    Args:
        change: of what is hidden, (..., query, key).
        as_numbers: what is hidden is 0, or what is seen 1 more, in place of minus infinity.
    """

    def called(func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        given = args[0] if args else kwargs.get("attn_mask")
        if (hidden := hidden_keys(query, key, value, *args, **kwargs)) is None:
            return func(query, key, value, *args, **kwargs)  # type: ignore[no-any-return]
        kwargs = {each: kwargs[each] for each in ("scale", "enable_gqa", "dropout_p") if each in kwargs}
        mask = ~change(hidden)
        if as_numbers:
            mask = mask.to(query.dtype)
        elif given is not None and given.is_floating_point():  # which may be a bias of positions too
            bias = given.masked_fill(hides(given), 0.0)
            mask = bias.masked_fill(~mask, torch.finfo(bias.dtype).min)
        return func(query, key, value, attn_mask=mask, **kwargs)  # type: ignore[no-any-return]

    def filled(func: Any, scores: Tensor, mask: Tensor, value: Any) -> Tensor:
        if (hidden := filled_scores(scores, mask, value)) is None:
            return func(scores, mask, value)  # type: ignore[no-any-return]
        return func(scores, change(hidden), 0.0 if as_numbers else value)  # type: ignore[no-any-return]

    def exchanged(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        return called(func, *args, **kwargs) if func in ATTENTION else filled(func, *args, **kwargs)

    exchange_in(module, (*ATTENTION, *FILLS), exchanged)


def _on_causal(s: Setup, at: Site, seen: Callable[[Tensor], Tensor]) -> str | None:
    """An attention that hides the future of the tokens that the loss asks for, with another mask.

    Args:
        seen: of the triangle of what is past or present, whom a token sees; what is hidden from all stays hidden.
    """
    places = sorted({each.module for each in at.trace.attentions if each.causal})
    if not places or told_tokens(at) is None:
        return None
    name = at.choose.choice(places)

    def exchanged(
        func: Any, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        kwargs = {each: kwargs[each] for each in ("scale", "enable_gqa", "dropout_p") if each in kwargs}
        mask = seen(torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril())
        if attn_mask is not None:
            hidden = hides(attn_mask)
            mask = mask & ~hidden[..., -1:, :]
            if attn_mask.is_floating_point():  # which may be a bias of positions too
                mask = attn_mask.masked_fill(hidden, 0.0).masked_fill(~mask, float("-inf"))
        return func(query, key, value, attn_mask=mask, **kwargs)  # type: ignore[no-any-return]

    exchange_in(s.model.get_submodule(name), ATTENTION, exchanged)
    return name


@operator("mask", "leak", needs="causal")
def causal_mask_forgotten(s: Setup, at: Site) -> str | None:
    """One attention of a causal model sees all tokens."""
    name = _on_causal(s, at, torch.ones_like)
    return None if name is None else f"{name}: no causal mask"


@operator("mask", "leak", "input-ignored", needs="causal")
def causal_mask_transposed(s: Setup, at: Site) -> str | None:
    """One attention of a causal model sees the future in place of the past."""
    name = _on_causal(s, at, lambda past: past.T)
    return None if name is None else f"{name}: triu for tril"


@operator("mask", "input-ignored")
def mask_of_another_sample(s: Setup, at: Site) -> str | None:
    """The model gets the mask of the sample before: what is hidden is another one's padding."""
    name = on_mask(s, at, lambda mask, padding: mask.roll(1, 0))
    return name and f"{name}: of the sample before"
