"""The batch on its own: numbers that are not there, constant columns, scales, samples that contradict each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.diagnose.evidence import Beginnings
from pytest_overfit.diagnose.evidence import Tensor as TensorSeen
from pytest_overfit.diagnose.questions.tensors import dense_tensors, first_bad_index, sampled

MOST_ROWS, TABLE = 4096, 2


def samples_of(batch: Any) -> int | None:
    """The length of the axis of samples: the leading one that the tensors share; None where there is none."""
    leading = [tensor.shape[0] for _, tensor in dense_tensors(batch) if tensor.dim()]
    if not leading:
        return None
    length, count = Counter(leading).most_common(1)[0]
    return length if length > 1 and (count > 1 or len(leading) == 1) else None


def measure_batch(batch: Any, inputs: Collection[str], targets: Collection[str]) -> tuple[TensorSeen, ...]:
    """Every tensor of a batch as plain numbers."""
    held = dense_tensors(batch)
    seen = (_look(key, tensor, key in inputs, key in targets) for key, tensor in held)
    return tuple(
        one if one.finite else replace(one, empty=_empty(tensor.detach(), [other for _, other in held]))
        for one, (_, tensor) in zip(seen, held, strict=True)
    )


def _look(key: str, tensor: Tensor, is_input: bool, is_target: bool) -> TensorSeen:
    real = tensor.is_floating_point()
    plain = tensor.detach()
    finite = bool(torch.isfinite(plain).all()) if real else True
    values = sampled(plain) if not plain.is_complex() else sampled(plain.abs())
    values = values[torch.isfinite(values)]
    some = values.numel() > 0
    deviations, mean = _columns(plain) if real and finite and plain.dim() == 2 and some else ((0.0, 0.0), 0.0)
    return TensorSeen(
        key=key,
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        finite=finite,
        bad_at=None if finite else first_bad_index(plain),
        low=float(values.min()) if some else 0.0,
        high=float(values.max()) if some else 0.0,
        mean=float(values.mean()) if some else 0.0,
        deviation=float(values.std(correction=0)) if some else 0.0,
        column_deviation=deviations,
        column_mean=mean,
        distinct_rows=_distinct(plain),
        is_input=is_input,
        is_target=is_target,
    )


def _empty(tensor: Tensor, others: Sequence[Tensor]) -> tuple[int, ...]:
    """Its rows without any number, where all others are whole and no mask of the batch is zero in these alone.

    Where numbers are missing here and there, those of a whole row may be missing by chance.
    """
    if not tensor.dim() or not 1 < len(tensor) <= MOST_ROWS or not tensor.numel():
        return ()
    there = torch.isfinite(tensor).reshape(len(tensor), -1)
    rows = ~there.any(1)
    if not torch.equal(rows, ~there.all(1)):
        return ()
    fitting = (t.detach() for t in others if t.dim() and len(t) == len(rows) and t.numel())
    declared = any(torch.equal((t == 0).reshape(len(t), -1).all(1).to(rows.device), rows) for t in fitting)
    return () if declared or bool(rows.all()) else tuple(rows.nonzero()[:, 0].tolist())


def _columns(tensor: Tensor) -> tuple[tuple[float, float], float]:
    """Smallest and largest deviation of a column, and the largest mean of one in absolute terms."""
    columns = tensor.double()
    deviation = columns.std(0, correction=0)
    return (float(deviation.min()), float(deviation.max())), float(columns.mean(0).abs().max())


def _distinct(tensor: Tensor) -> int | None:
    if tensor.dim() == 0 or not 1 < tensor.shape[0] <= MOST_ROWS or not tensor.numel() or tensor.is_complex():
        return None
    return len(torch.unique(tensor.detach().reshape(tensor.shape[0], -1).cpu(), dim=0))


def conflicts(batch: Any, inputs: Collection[str], samples: int | None) -> Mapping[str, tuple[str, int]]:
    """Samples whose inputs are alike and whose targets are not: ``{inputs: (target, samples)}``."""
    if samples is None or samples > MOST_ROWS or not inputs:
        return {}
    rows = {
        key: tensor.detach().reshape(samples, -1).double().cpu()
        for key, tensor in dense_tensors(batch)
        if tensor.dim() and tensor.shape[0] == samples and tensor.numel() and not tensor.is_complex()
    }
    given = {key: value for key, value in rows.items() if key in inputs}
    if not given or len(given) < len(list(inputs)):
        return {}
    joined = torch.cat(list(given.values()), dim=1)
    _, groups, counts = torch.unique(joined, dim=0, return_inverse=True, return_counts=True)
    repeated = counts[groups] > 1
    if not bool(repeated.any()):
        return {}
    for key, value in rows.items():
        for group in torch.unique(groups[repeated]).tolist():
            if key not in given and len(torch.unique(value[groups == group], dim=0)) > 1:
                return {", ".join(given): (key, int(repeated.sum()))}
    return {}


def shared_beginnings(batch: Any, inputs: Collection[str]) -> Beginnings | None:
    """Rows of tokens that begin alike and go on differently, where the labels of the batch count that.

    Example:
        >>> shared_beginnings(torch.tensor([[7, 1, 5], [7, 2, 5]]), ["batch"])
        Beginnings(key='batch', rows=(0, 1), place=1, floor=0.34657...)
    """
    dense = dense_tensors(batch)
    for key, tensor in dense:
        if key not in inputs or tensor.dim() != TABLE or not is_whole(tensor):
            continue
        if not 1 < len(tensor) <= MOST_ROWS or not 1 < tensor.shape[1] <= MOST_ROWS:
            continue
        counts = torch.ones(tensor.shape, dtype=torch.bool)
        for _, other in dense:
            if other is not tensor and other.shape == tensor.shape and is_whole(other):
                counts &= other.cpu() >= 0
        if (found := _beginnings(key, tensor.cpu().long(), counts)) is not None:
            return found
    return None


def is_whole(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)


def _beginnings(key: str, tokens: Tensor, counts: Tensor) -> Beginnings | None:
    begun = torch.zeros(len(tokens), dtype=torch.long)
    first: tuple[tuple[int, int], int] | None = None
    lost = 0.0
    for place in range(tokens.shape[1] - 1):
        begun = torch.unique(torch.stack([begun, tokens[:, place]]), dim=1, return_inverse=True)[1]
        rows = counts[:, place + 1].nonzero()[:, 0]
        going = torch.stack([begun[rows], tokens[rows, place + 1]])
        together, ways = begun[rows].bincount(), torch.unique(going, dim=1, return_inverse=True, return_counts=True)
        lost += float(torch.special.xlogy(together.double(), together).sum())
        lost -= float(torch.special.xlogy(ways[2].double(), ways[2]).sum())
        if first is None and int((together > 0).sum()) < len(ways[2]):
            group = next(g for g in begun[rows].tolist() if len(set(going[1][going[0] == g].tolist())) > 1)
            among = rows[begun[rows] == group].tolist()
            other = next(row for row in among if tokens[row, place + 1] != tokens[among[0], place + 1])
            first = ((among[0], other), place + 1)
    counted = int(counts[:, 1:].sum())
    return Beginnings(key, *first, lost / counted) if first is not None and counted else None
