"""What of a batch is padding, by its own masks, lengths and tokens, and whether it moves what is made of the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import PaddingRead
from pytest_overfit.diagnose.questions.mixing import odd_one_out
from pytest_overfit.diagnose.questions.model_calls import ModelCall
from pytest_overfit.diagnose.questions.tensors import dense_tensors
from pytest_overfit.errors.asking import Refused

MOST_ROWS = 4  # that a mended mask is tried on
READ = 1e-3  # of the outputs' size: a row that is asked by itself is rounded otherwise
MENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "of the next sample": lambda mask: mask.roll(-1, 0),
    "of the sample before": lambda mask: mask.roll(1, 0),
    "turned around": lambda mask: mask.flip(1),
    "inverted": lambda mask: (1 - mask.int()).to(mask.dtype),
}


def padding_of(batch: Any, pads: Collection[int] = (), counted: Sequence[Tensor] = ()) -> Tensor | None:
    """(B, T), True at padding: places that a mask marks, that end or begin every row, and that hold one value alone.

    Or that a mask marks and the loss leaves out: ``counted`` has the places of outputs that teach.

    None where the batch has no such mask: a mask by itself does not say which of its two values is meant.

    Args:
        pads: tokens that an embedding takes for padding.
    """
    tensors = [tensor.detach() for _, tensor in dense_tensors(batch)]
    for mask in _masks(tensors, pads):
        for tensor in tensors:
            if tensor.dtype is torch.bool or tensor.dim() not in (2, 3) or tensor.shape[:2] != mask.shape:
                continue
            for padding in (mask, ~mask):
                if _is_edge(padding) and _holds_one_value(tensor, padding):
                    return padding
    marked = (mask.bool() for mask in tensors if mask.dim() == 2 and _is_mask(mask))
    return next((~each for mask in marked for each in counted if torch.equal(mask, each) and _is_edge(~each)), None)


def pads_of(model: nn.Module) -> set[int]:
    """The tokens that embeddings of a model take for padding."""
    found = {getattr(module, "padding_idx", None) for module in model.modules()}
    return {pad for pad in found if isinstance(pad, int)}


def _masks(tensors: list[Tensor], pads: Collection[int]) -> Iterator[Tensor]:
    """(B, T) masks, what lengths (B,) say of a (B, T) tensor, and where tokens are padding."""
    for tensor in tensors:
        if tensor.dim() == 2 and _is_mask(tensor):
            yield tensor.bool()
    for tensor in tensors:
        if tensor.dim() == 2 and tensor.dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
            yield from (tensor == pad for pad in pads)
            yield tensor < 0  # labels that do not count
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


def measure_padding(call: ModelCall, padding: Tensor) -> PaddingRead | None:
    """What the padding of a batch does to the outputs of a model, in whatever mode it is.

    None where no row is padded at its end, or the model does not take a row by itself.
    """
    samples, length = padding.shape
    if bool(padding[:, 0].any()) or not bool(padding.any()):
        return None
    real = (~padding).sum(1)
    rows = [int(row) for row in real.argsort()[:MOST_ROWS] if real[row] < length]

    def cut(tensor: Tensor, row: int) -> Tensor:
        kept = int(real[row])
        if tensor.dim() and tensor.shape[0] == samples:
            tensor = tensor[row : row + 1]
        for axis in range(tensor.dim()):
            if tensor.shape[axis] == length and (axis or samples != length):
                tensor = tensor.narrow(axis, 0, kept)
        return tensor

    def moved(row: int, mask: Tensor | None = None, mend: Callable[[Tensor], Tensor] = torch.clone) -> float:
        largest = 0.0
        whole_rows = call.again(lambda tensor: mend(tensor) if tensor is mask else tensor)
        alone = call.again(lambda tensor: mend(cut(tensor, row)) if tensor is mask else cut(tensor, row))
        for old, new in zip(whole_rows, alone, strict=False):
            if old.dim() and old.shape[0] == samples and (whole := cut(old, row)).shape == new.shape and new.numel():
                size = float(whole.double().square().mean().sqrt()) or 1.0
                largest = max(largest, float((whole - new).double().abs().max()) / size)
        return largest

    given = list(call.arguments())
    told = next((name for name, tensor in given if _tells(tensor, padding, real)), "")
    try:
        found = PaddingRead(rows[0], moved(rows[0]), told)
    except Refused:
        return None
    if found.moved <= READ:
        return found
    for how, mend in MENDS.items():
        for name, mask in given:
            if mask.shape != padding.shape or not _is_mask(mask):
                continue
            with contextlib.suppress(Refused):
                left = max(moved(row, mask, mend) for row in rows)  # what reads nothing at all moves one by nothing
                if left < READ / 10:
                    return replace(found, told=name, mended=how, left=left)
    return replace(found, where=odd_one_out(call, *_under(padding), most=False))


def _under(padding: Tensor) -> tuple[Any, Any, Any, Any]:
    """How features under padding are exchanged, how far those of the rest move, and what has either."""
    real = ~padding & padding.any(1, keepdim=True)

    def has_places(tensor: Tensor) -> bool:
        return tensor.is_floating_point() and tensor.dim() == 3 and tensor.shape[:2] == padding.shape

    def exchanged(tensor: Tensor) -> Tensor:
        if not has_places(tensor):
            return tensor
        return torch.where(padding[..., None], tensor.flip(2) * 0.7 + 0.1, tensor)

    def moved(before: Tensor, after: Tensor) -> float:
        if not has_places(before):
            return 0.0
        return float((before - after)[real].abs().max()) / (float(before.abs().max()) or 1.0)

    return exchanged, moved, has_places, lambda module, given: False


def _is_mask(tensor: Tensor) -> bool:
    return bool(((tensor == 0) | (tensor == 1)).all())


def _tells(tensor: Tensor, padding: Tensor, real: Tensor) -> bool:
    """Whether a tensor is a mask of the padding, or the lengths without it."""
    if tensor.shape == padding.shape and _is_mask(tensor):
        return torch.equal(tensor.bool(), padding) or torch.equal(tensor.bool(), ~padding)
    return tensor.shape == real.shape and not tensor.is_floating_point() and torch.equal(tensor.to(real), real)
