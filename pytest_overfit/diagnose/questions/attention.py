"""Which keys the queries of an attention read: by its mask where it has one, by its weights where they are at hand."""

from __future__ import annotations

import torch
from torch import Tensor

from pytest_overfit.diagnose.operation import KeysRead

NOTHING = 1e-12  # weight of a key that is masked out, whatever large number the mask subtracts
MASKED = -5e3  # a logit from which on a key is masked out: masks subtract 1e4 and more
MOST_ELEMENTS = 4_000_000


def by_weights(weights: Tensor, logits: Tensor | None, padding: Tensor | None) -> KeysRead | None:
    """Of the softmax over the keys of an attention that is written out."""
    if weights.dim() < 2 or weights.shape[-1] < 2 or weights.numel() > MOST_ELEMENTS:
        return None
    open_ = torch.ones_like(weights, dtype=torch.bool) if logits is None else logits.detach() > MASKED
    return _looked(open_, weights.detach() > NOTHING, padding)


def by_mask(mask: Tensor | None, padding: Tensor | None, queries: int, keys: int) -> KeysRead | None:
    """Of a kernel whose weights stay inside, by what its mask lets through: (..., queries, keys)."""
    if mask is None and padding is not None:
        mask = torch.ones(len(padding), queries, keys, dtype=torch.bool, device=padding.device)
    if mask is None or mask.dim() < 2 or mask.shape[-1] < 2 or mask.numel() > MOST_ELEMENTS:
        return None
    return _looked(mask, mask, padding)


def mask_of_kernel(
    queries: int, keys: int, mask: Tensor | None, causal: bool, device: torch.device | None = None
) -> Tensor | None:
    """What the arguments of ``scaled_dot_product_attention`` let through, None where they leave nothing out."""
    if mask is not None:
        open_ = mask if mask.dtype is torch.bool else mask.detach() > MASKED
        return open_.expand(*open_.shape[:-2], queries, keys) if open_.dim() > 1 else None
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril() if causal else None


def mask_of_heads(query: Tensor, key: Tensor, attn_mask: Tensor | None, left_out: Tensor | None) -> Tensor | None:
    """The same of ``multi_head_attention_forward``, whose booleans say what is left out: (..., queries, keys)."""
    masks = []
    if attn_mask is not None:
        masks.append(_lets_through(attn_mask))
    if left_out is not None:
        masks.append(_lets_through(left_out)[..., None, :])
    if not masks:
        return None
    if len(masks) == 2 and masks[0].dim() == 3 and masks[1].dim() == 3:  # one mask per head and sample
        masks[1] = masks[1].repeat_interleave(len(masks[0]) // len(masks[1]), 0)
    whole = masks[0] if len(masks) == 1 else masks[0] & masks[1]
    return whole.expand(*whole.shape[:-2], query.shape[0], key.shape[0])


def _lets_through(mask: Tensor) -> Tensor:
    return ~mask if mask.dtype is torch.bool else mask.detach() > MASKED


def _looked(open_: Tensor, read: Tensor, padding: Tensor | None) -> KeysRead:
    queries, keys = open_.shape[-2:]
    future = torch.ones(queries, keys, dtype=torch.bool, device=open_.device).triu(1)
    shut = bool((~open_).any())
    backward = shut and queries > 1 and not bool((open_ & future).any())
    whole = backward and bool((open_ | future).reshape(-1, queries * keys).all(1).any())
    alone = inside = heeds = False
    if padding is not None and (apart := _by_sample(read, padding)) is not None:
        padded = padding.to(apart.device)
        rows = padded.any(1)
        alone = bool(rows.any()) and bool((apart.flatten(1, 2).any(1) == padded)[rows].all())
        apart = apart & padded[:, None, None, :]
        heeds = shut and bool(rows.any()) and not bool(apart.any())
        inside = bool((apart & ~padded[:, None, :, None] if queries == keys else apart).any())
    return KeysRead(
        keys,
        causal=whole and queries == keys,
        unread=keys - queries if whole and keys > queries else 0,
        padding_alone=alone,
        padding=inside,
        heeds=heeds,
        masked=bool((~open_ & ~future).any()) if backward else shut,
    )


def _by_sample(read: Tensor, padding: Tensor) -> Tensor | None:
    """(samples, heads, queries, keys); None where the keys are not the places of which padding is known."""
    samples, length = padding.shape
    if read.shape[-1] != length or read.dim() < 3 or read.shape[0] % samples:
        return None
    return read.reshape(samples, -1, *read.shape[-2:])
