"""Does a target stand in the input? A model that only copies it has shown nothing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.errors.asking import Refused
from pytest_overfit.run.batch import named_tensors
from pytest_overfit.run.elements import is_strided, numbers_of
from pytest_overfit.run.loss_call import exchanged

MOST_COLUMNS = 4096  # of an input that are looked through
MOST_WANTED = 64  # columns of a target
CHANCE = 1e-3  # of columns that agree by accident
MIXED, ROUNDED = 1e-3, 1e-6  # of a difference, and of the objective: a mixed difference that is none


def copied_target(
    batch: Any,
    inputs: Collection[str],
    targets: Collection[str],
    objective: Callable[[Any], float] | None = None,
) -> str | None:
    """A sentence on a target whose every value stands in one input, sample by sample; None where there is none.

    Args:
        objective: of a batch. It says whether what is held against a target answers to where the target stands: a
            decoder that is given a series, and reads of each place only those before it, copies nothing.

    Example:
        >>> x, y = torch.randn(12, 4), torch.arange(12) % 3
        >>> copied_target((torch.cat([x, torch.eye(3)[y]], 1), y), ["0"], ["1"])
        '1 stands in 0: columns 4, 5, 6'

    A target that is the whole input (an autoencoder's) is meant.
    """
    plain = {key: numbers_of(tensor) for key, tensor in named_tensors(batch) if is_strided(tensor)}
    tensors = {key: _real(t) for key, t in plain.items() if t is not None and t.dim() > 0 and len(t) > 1}
    for target in (key for key in targets if key in tensors and key not in inputs):
        for key in (key for key in inputs if key in tensors):
            wanted, given = tensors[target], tensors[key]
            if given.shape == wanted.shape or len(given) != len(wanted):
                continue
            columns = _columns(given.reshape(len(given), -1), wanted.reshape(len(wanted), -1))
            if columns and (objective is None or _is_read(objective, batch, (target, key), columns)):
                shown = ", ".join(map(str, columns[:4])) + (", ..." if columns[4:] else "")
                return f"{target} stands in {key}: column{'s' if columns[1:] else ''} {shown}"
    return None


def _is_read(objective: Callable[[Any], float], batch: Any, keys: tuple[str, str], columns: list[int]) -> bool:
    """Whether what is held against a column of the target moves with where that column stands in the input.

    By the mixed difference of the objective, with the column of other samples in either, and in both: a sum of errors
    of which none has both has none. What cannot be asked that way is read.
    """
    target, given = (next(t for key, t in named_tensors(batch) if key == each) for each in keys)
    if target.is_complex() or given.is_complex():
        return True
    width = target.numel() // len(target)
    pairs = [(i, [columns[i]]) for i in {0, width // 2, width - 1}] if len(columns) == width else [(0, columns)]
    with contextlib.suppress(Refused):
        start = objective(batch)
        for at, held in pairs:
            answer, input_ = _rolled(target, [at]), _rolled(given, held)
            news = {id(target): answer}, {id(given): input_}, {id(target): answer, id(given): input_}
            one, other, both = (objective(exchanged(batch, new)) - start for new in news)
            if not abs(both - one - other) <= max(MIXED * min(abs(one), abs(other)), ROUNDED * abs(start)):
                return True
        return False
    return True


def _rolled(tensor: Tensor, columns: list[int]) -> Tensor:
    """A copy in which some columns are those of other samples."""
    rows = tensor.detach().clone().reshape(len(tensor), -1)
    rows[:, columns] = rows[:, columns].roll(1, 0)
    return rows.reshape(tensor.shape)


def _columns(given: Tensor, wanted: Tensor) -> list[int]:
    """The column of the input that each column of the target is, or each of its classes; empty where one is missing."""
    if given.shape[1] > MOST_COLUMNS or wanted.shape[1] > MOST_WANTED:
        return []
    if found := _found(given, wanted.unbind(1)):
        return found
    if wanted.shape[1] > 1 or wanted.is_floating_point():
        return []
    classes = torch.unique(wanted)
    return _found(given, [(wanted[:, 0] == value) for value in classes]) if 1 < len(classes) <= MOST_WANTED else []


def _found(given: Tensor, wanted: Collection[Tensor]) -> list[int]:
    columns, chance = [], 1.0
    for column in wanted:
        values = len(torch.unique(column))
        if values < 2:
            return []
        equal = (given == column.to(given.dtype)[:, None]).all(0).nonzero()
        if not len(equal):
            return []
        if int(equal[0]) not in columns:  # columns that are alike agree by one accident
            chance *= given.shape[1] * math.exp(-len(column) * math.log(values))
        columns.append(int(equal[0]))
    return columns if chance < CHANCE else []


def _real(tensor: Tensor) -> Tensor:
    """The real and the imaginary parts of complex numbers as columns."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
