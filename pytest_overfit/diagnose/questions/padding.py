"""What of a batch is padding, by its own masks and lengths, and whether an attention reads nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.questions.tensors import dense_tensors

NOTHING = 1e-12  # weight of a key that is masked out, whatever large number the mask subtracts


def padding_of(batch: Any) -> Tensor | None:
    """(B, T), True at padding: places that a mask marks, that end or begin every row, and that hold one value alone.

    None where the batch has no such mask: a mask by itself does not say which of its two values is meant.
    """
    tensors = [tensor.detach() for _, tensor in dense_tensors(batch)]
    for mask in _masks(tensors):
        for tensor in tensors:
            if tensor.dtype is torch.bool or tensor.dim() not in (2, 3) or tensor.shape[:2] != mask.shape:
                continue
            for padding in (mask, ~mask):
                if _is_edge(padding) and _holds_one_value(tensor, padding):
                    return padding
    return None


def _masks(tensors: list[Tensor]) -> Iterator[Tensor]:
    """(B, T) masks, and what lengths (B,) say of a (B, T) tensor."""
    for tensor in tensors:
        if tensor.dim() == 2 and (tensor.dtype is torch.bool or bool(((tensor == 0) | (tensor == 1)).all())):
            yield tensor.bool()
    sequences = {tuple(tensor.shape[:2]) for tensor in tensors if tensor.dim() in (2, 3)}
    for tensor in tensors:
        if tensor.dim() == 1 and tensor.dtype in (torch.int32, torch.int64) and bool((tensor > 0).all()):
            for samples, length in sequences:
                if samples == len(tensor) and int(tensor.max()) <= length:
                    yield torch.arange(length, device=tensor.device)[None] >= tensor[:, None]


def _is_edge(padding: Tensor) -> bool:
    """Whether every row is padded at its end, or every row at its start, some row is, and none is all through."""
    whole = padding.all(1)
    steps = padding.int().diff(dim=1)
    return bool(padding.any() and not whole.any() and (bool((steps >= 0).all()) or bool((steps <= 0).all())))


def _holds_one_value(tensor: Tensor, padding: Tensor) -> bool:
    inside, outside = tensor[padding], tensor[~padding]
    return bool((inside == inside[:1]).all()) and not bool(
        (outside == inside[0]).reshape(len(outside), -1).all(1).any()
    )


def reads_padding_alone(padding: Tensor, read: Tensor) -> bool:
    """Whether the keys that are read, (B, T), are the padding of every row and nothing beside it."""
    padded = padding.any(1)
    return read.shape == padding.shape and bool(padded.any()) and bool((read == padding)[padded].all())


def keys_read(weights: Tensor, batch: int) -> Tensor | None:
    """(B, T): keys with a weight for any query, of weights or a mask (B, ..., T); None for another layout."""
    if weights.dim() < 2 or weights.shape[0] != batch:
        return None
    return (weights.detach() > NOTHING).reshape(batch, -1, weights.shape[-1]).any(1)


def keys_let_through(mask: Tensor, batch: int) -> Tensor | None:
    """The same of an additive mask, or one that is True where a key takes part."""
    if mask.is_floating_point():
        mask = mask.detach() > -1e4
    return keys_read(mask.to(torch.float32), batch)
