"""Do the documents that are packed into one row move each other's outputs, though the model is told where they end?"""

from __future__ import annotations

import torch
from torch import Tensor

from pytest_overfit.diagnose.padded import Packed
from pytest_overfit.diagnose.questions.model_calls import ModelCall, where_it_arises
from pytest_overfit.errors.asking import Refused

IDS = ("document_ids", "doc_ids", "sequence_ids", "seq_idx")
TABLE = 2  # (rows, places)


def measure_documents(call: ModelCall) -> Packed | None:
    """How far the first document of every row moves the outputs of those behind it; None where nothing is packed."""
    arguments = [(name, tensor) for name, tensor in call.arguments() if tensor.dim()]
    shapes = {tuple(tensor.shape[:TABLE]) for _, tensor in arguments if tensor.dim() >= TABLE}
    for name, told in arguments:
        numbers = _documents(name, told, shapes)
        if numbers is None:
            continue
        first = numbers == numbers[:, :1]
        rows = [t for _, t in arguments if t is not told and t.shape[:TABLE] == first.shape]
        changed = {id(t): _exchanged(t, first) for t in rows if not _tells(t, numbers)}

        def behind(old: Tensor, new: Tensor, first: Tensor = first) -> float:
            if old.shape[:TABLE] != first.shape or old.shape != new.shape:
                return 0.0
            return float((old - new)[~first].abs().max()) / (float(old.abs().max()) or 1.0)

        def change(tensor: Tensor, changed: dict[int, Tensor] = changed) -> Tensor:
            return changed.get(id(tensor), tensor)

        try:
            pairs = list(zip(call.again(), call.again(change), strict=False))
        except Refused:
            return None
        moved = max((behind(old, new) for old, new in pairs), default=0.0)
        where = where_it_arises(call, change, lambda old, new: behind(old, new) > 0) if moved else ""
        return Packed(name, int(numbers.max()) + 1, moved, where)
    return None


def _documents(name: str, told: Tensor, shapes: set[tuple[int, ...]]) -> Tensor | None:
    """(rows, places): the number of the document of every place, where a row has several."""
    if told.is_floating_point() or told.dtype is torch.bool:
        return None
    numbers = None
    if name == "position_ids" and told.dim() == TABLE:
        steps = told.diff(dim=1)
        starts = torch.nn.functional.pad(told[:, 1:] == 0, (1, 0))
        alone = starts[:, :-1] & starts[:, 1:]  # a place by itself is padding
        if bool((told[:, 0] == 0).all()) and bool(((steps == 1) | starts[:, 1:]).all()) and not bool(alone.any()):
            numbers = starts.cumsum(1)
    elif name in IDS and told.dim() == TABLE:
        numbers = told - told.min()
    elif name.startswith(("cu_seqlens", "cu_seq_lens")) and told.dim() == 1:
        places = torch.arange(int(told[-1]), device=told.device)
        numbers = torch.bucketize(places, told[1:].contiguous(), right=True)[None]
    if numbers is None or tuple(numbers.shape) not in shapes or not bool((numbers != numbers[:, :1]).any()):
        return None
    return numbers


def _tells(tensor: Tensor, numbers: Tensor) -> bool:
    """Whether whole numbers are the same all through a document, or count its places: they are no content."""
    if tensor.is_floating_point() or tensor.dim() != TABLE:
        return False
    steps = tensor.long().diff(dim=1)[numbers.diff(dim=1) == 0]
    return bool((steps == 0).all()) or bool((steps == 1).all())


def _exchanged(tensor: Tensor, first: Tensor) -> Tensor:
    """Other numbers, or other tokens of the batch, in the first document of every row."""
    plain = tensor.detach()
    other = plain * 0.7 + 0.1 if plain.is_floating_point() else plain.flip(1)
    return torch.where(first.reshape(*first.shape, *[1] * (plain.dim() - TABLE)), other, plain)
