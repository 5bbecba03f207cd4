"""What of a batch is padding, by its own masks, lengths and tokens, and whether it moves what is made of the rest."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.padded import PaddingRead
from pytest_overfit.diagnose.questions.mixing import odd_one_out
from pytest_overfit.diagnose.questions.model_calls import ModelCall
from pytest_overfit.diagnose.questions.tensors import dense_tensors, is_real
from pytest_overfit.errors.asking import Refused
from pytest_overfit.run.batch import map_tensors

MOST_ROWS = 4  # that a mended mask is tried on
MOST_STEP = 8  # of the places of an output over those of its input
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
            if tensor.dim() == 2 and _is_mask(tensor):
                continue
            for padding in (mask, ~mask):
                if _is_edge(padding) and _padded(tensor, padding) is not None:
                    return padding
    marked = (mask.bool() for mask in tensors if mask.dim() == 2 and _is_mask(mask))
    return next((~each for mask in marked for each in counted if torch.equal(mask, each) and _is_edge(~each)), None)


def pads_of(model: nn.Module) -> set[int]:
    """The tokens that embeddings of a model take for padding."""
    found = {getattr(module, "padding_idx", None) for module in model.modules()}
    return {pad for pad in found if isinstance(pad, int)}


def _padded(tensor: Tensor, padding: Tensor) -> Tensor | None:
    """A tensor as (B, T) or (B, T, C), in whichever order it has them, that holds one value alone under the padding."""
    layouts = [tensor] if tensor.dim() == 2 else [tensor, tensor.transpose(1, 2)] if tensor.dim() == 3 else []
    found = (t for t in layouts if t.shape[:2] == padding.shape and _holds_one_value(t, padding))
    return None if tensor.dtype is torch.bool else next(found, None)


def _behind(mask: Tensor) -> Tensor:
    """The places of every row that lie behind its last True."""
    return ~mask.flip(1).cummax(1).values.flip(1) if mask.numel() else mask


def _masks(tensors: list[Tensor], pads: Collection[int]) -> Iterator[Tensor]:
    """(B, T) masks, what lies behind the end of one, what lengths (B,) say of a (B, T) tensor, and padding tokens."""
    marks = [tensor.bool() for tensor in tensors if tensor.dim() == 2 and _is_mask(tensor)]
    yield from marks
    yield from map(_behind, marks)
    for tensor in tensors:
        if tensor.dim() == 2 and tensor.dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
            yield from (tensor == pad for pad in pads)
            yield tensor < 0  # labels that do not count
    sequences = {tuple(tensor.shape[:2]) for tensor in tensors if tensor.dim() in (2, 3)}
    sequences |= {tuple(tensor.shape[::2]) for tensor in tensors if tensor.dim() == 3}
    for tensor in tensors:
        if tensor.dim() != 1 or not tensor.numel():
            continue
        if tensor.dtype in (torch.int32, torch.int64) and bool((tensor > 0).all()):
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
        return _cut(padding, row, int(real[row]), tensor)

    def moved(row: int, mask: Tensor | None = None, mend: Callable[[Tensor], Tensor] = torch.clone) -> float:
        largest = 0.0
        whole_rows = call.again(lambda tensor: mend(tensor) if tensor is mask else tensor)
        alone = call.again(lambda tensor: mend(cut(tensor, row)) if tensor is mask else cut(tensor, row))
        for old, new in zip(whole_rows, alone, strict=False):
            if old.dim() and old.shape[0] == samples and (whole := cut(old, row)).shape == new.shape and new.numel():
                size = float(whole.double().square().mean().sqrt()) or 1.0
                largest = max(largest, float((whole - new).double().abs().max()) / size)
        return largest

    given = list(call.arguments(mapped=True))
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


def measure_padded_loss(
    asked: Callable[[Any], tuple[list[Tensor], float]],
    batch: Any,
    padding: Tensor,
    found: PaddingRead | None,
    counted: Sequence[Tensor] = (),
) -> PaddingRead | None:
    """What is known, with how far the objective moves once other content stands under the padding.

    Nothing is where no mask and no lengths of the batch say what is padding, or where a row by itself has the same
    objective without its padding: then the loss or the model go by the content.

    Args:
        asked: the outputs and the objective of a batch.
        counted: (B, T) places of outputs that teach.
    """
    real = (~padding).sum(1)
    told = next((key for key, t in dense_tensors(batch) if _tells(t.detach(), padding, real)), "")
    if not told or bool(padding[:, 0].any()):
        return found
    changed: dict[int, Tensor] = {}
    for _, tensor in dense_tensors(batch):
        if _is_mask(tensor) or (places := _padded(tensor.detach(), padding)) is None:
            continue
        if tensor.is_floating_point() or int(places[padding].min()) >= 0:  # labels below 0 do not count
            other = tensor.detach().clone()
            in_places = other if places.stride() == tensor.stride() else other.transpose(1, 2)
            in_places[padding] = places[:, :1].expand_as(places)[padding]
            changed[id(tensor)] = other
    row = int(real.where(padding.any(1), 0).argmax())
    outputs, whole = asked(batch)
    others, moved = asked(map_tensors(lambda t: changed.get(id(t), t), batch))
    if not abs(moved - whole) > READ * abs(whole):
        return found
    try:
        _, alone = asked(map_tensors(partial(_cut, padding, row, 0), batch))
        _, cut = asked(map_tensors(partial(_cut, padding, row, int(real[row])), batch))
        by_content = not abs(alone - cut) > READ * abs(alone)
    except Refused:
        by_content = not all(t.is_floating_point() for t in changed.values())
    known = found or PaddingRead(row, 0.0)
    if by_content:
        return found
    beside = max((_moved_beside(*pair, padding, counted) for pair in zip(outputs, others, strict=False)), default=0.0)
    return replace(known, objective=(whole, moved), key=told, beside=beside if beside > READ else 0.0)


def _moved_beside(old: Tensor, new: Tensor, padding: Tensor, counted: Sequence[Tensor]) -> float:
    """How far an output moves, relative to its size, at places that are no padding; it may have fewer than its input.

    Where the loss counts places of padding, those next to it are left out: a convolution reads it there by its width.
    """
    axes = [axis for axis in range(old.dim()) if old.shape[axis] == len(padding)]
    if not is_real(old) or old.shape != new.shape or old.dim() < 2 or not axes or axes[0] > 1:
        return 0.0
    old, new = (tensor.movedim(axes[0], 0) for tensor in (old, new))
    length = padding.shape[1]
    # the axis of time: as long as the input's, else the first that a whole step over it gives
    steps = [{-(-length // step), length // step} for step in range(1, MOST_STEP + 1)]
    lengths = [
        (step, axis) for axis in (1, 2) if axis < old.dim() for step, of in enumerate(steps) if old.shape[axis] in of
    ]
    if not lengths:
        return 0.0
    time = min(lengths)[1]
    gap, size = ((t.movedim(time, 1).flatten(2) if t.dim() > 2 else t[..., None]) for t in (new - old, old))
    ends = (~padding).sum(1) * gap.shape[1] // length
    places = torch.arange(gap.shape[1], device=gap.device)[None]
    if any(bool((each & (places >= ends[:, None] + 1)).any()) for each in counted if each.shape == gap.shape[:2]):
        ends = ends // 2
    within = (places < ends[:, None]) & padding.any(1)[:, None]
    if not bool(within.any()):
        return 0.0
    scale = float(size[within].double().square().mean().sqrt()) or 1.0
    return float(gap[within].double().abs().max()) / scale


def untaught_ends(batch: Any, counted: Sequence[Tensor]) -> tuple[str, int]:
    """The mask of a batch at whose ends, and how many last tokens of every row, no place of a decoder learns.

    A place learns the token behind it: the last one but one, where rows of several lengths count up to their ends.

    Args:
        counted: (B, T) places of outputs that teach.
    """
    for key, tensor in dense_tensors(batch):
        for real in (tensor.bool(), ~tensor.bool()) if tensor.dim() == 2 and _is_mask(tensor) else ():
            taught = [each for each in counted if each.shape == real.shape and bool(each.any(1).all())]
            ends = real.shape[1] - 1 - real.flip(1).int().argmax(1)
            if not taught or not _is_edge(~real) or len(set(ends.tolist())) < 2 or bool((taught[0] & ~real).any()):
                continue
            gaps = ends - (real.shape[1] - 1 - taught[0].flip(1).int().argmax(1))
            if int(gaps.min()) == int(gaps.max()) > 1:
                return key, int(gaps[0]) - 1
    return "", 0


def read_otherwise(call: ModelCall, batch: Any) -> tuple[str, str, str]:
    """An argument, a mask of the batch, and how that would have to be changed to mark the places that outputs read.

    Empty where they read what a mask marks, or leaves out, or something else.
    """
    masks = [(key, t.bool()) for key, t in dense_tensors(batch) if t.dim() == 2 and _is_mask(t)]
    edges = [(key, mask) for key, mask in masks if _is_edge(mask) or _is_edge(~mask)]
    for name, tensor in call.arguments() if edges else ():
        if tensor.dim() != 3 or not tensor.is_floating_point() or (slopes := call.slopes(tensor)) is None:
            continue
        read = (slopes != 0).any(2)
        own = any(torch.equal(read, each) for _, mask in masks for each in (mask, ~mask))
        for (key, mask), (how, mend) in itertools.product(edges, MENDS.items()):
            if not own and any(torch.equal(read, mend(each)) for each in (mask, ~mask)):
                return name, key, how
    return "", "", ""


def counted_otherwise(padding: Tensor, counted: Sequence[Tensor]) -> tuple[str, int, int]:
    """How the mask of a batch would have to be changed to be that of the places that teach; and of these places the
    number of those that are padding, with the number of others that teach nothing.

    Args:
        counted: (B, T) places of outputs that teach.
    """
    for each in (each for each in counted if each.shape == padding.shape):
        for how, mend in MENDS.items():
            if not torch.equal(each, ~padding) and torch.equal(each, mend(~padding)):
                return how, int((each & padding).sum()), int((~each & ~padding).sum())
    return "", 0, 0


def _cut(padding: Tensor, row: int, length: int, tensor: Tensor) -> Tensor:
    """A row of a tensor by itself, and so many of its places; 0: all."""
    samples, places = padding.shape
    if tensor.dim() and tensor.shape[0] == samples:
        tensor = tensor[row : row + 1]
    for axis in range(tensor.dim() if length else 0):
        if tensor.shape[axis] == places and (axis or samples != places):
            tensor = tensor.narrow(axis, 0, length)
    return tensor


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
        marked = tensor.bool()
        return any(torch.equal(each, padding) for each in (marked, ~marked, _behind(marked)))
    return tensor.shape == real.shape and not tensor.is_floating_point() and torch.equal(tensor.to(real), real)
