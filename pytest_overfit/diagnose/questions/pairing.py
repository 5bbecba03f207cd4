"""Is the prediction that is made of a sample's input the one that is held against that sample's answer?"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.questions.loss_floor import freed
from pytest_overfit.diagnose.questions.mixing import MOVED
from pytest_overfit.diagnose.questions.model_calls import ModelCall
from pytest_overfit.diagnose.questions.tensors import dense_tensors, is_real
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.task import Heard, Task, Terms

Forward = Callable[[Any], tuple[Heard, Terms]]
STILL = 1e-4  # relative: a row that moves less was only computed in another batch
MOST_ROWS = 4  # of a tensor that are exchanged one by one
MOST_TENSORS = 8  # of a batch: each costs one forward pass


@dataclass(frozen=True)
class _Rows:
    """Which rows of every output move, and which rows of the objective's gradient there, True where they do."""

    outputs: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


def measure_pairing(forward: Forward, batch: Any, samples: int | None) -> tuple[bool | None, str]:
    """Whether the rows of the outputs answer to inputs and targets of the same samples; and the output that does not.

    The first half of the samples gets other inputs, and then other targets. Where exactly half of the rows of an
    output move with the inputs, and half of its gradient with the targets, both have to be the same half. A loss that
    gives the same whatever the order of the targets (a matching, a set) may pair them as it likes: None, as where
    nothing is certain.

    Args:
        forward: outputs and terms of a batch, with their graphs, repeatable and in evaluation mode.
    """
    named = [(key, t) for key, t in dense_tensors(batch) if t.dim() and t.shape[0] == samples][:MOST_TENSORS]
    if samples is None or samples < 4 or len(named) < 2:
        return None, ""
    base = _measured(forward, batch)
    if base is None:
        return None, ""
    read: dict[str, list[Tensor]] = {}
    answered: dict[str, list[Tensor]] = {}
    targets = []
    for _, tensor in named:
        changed = _half_exchanged(tensor)
        try:
            moved = None if changed is None else _moved(forward, batch, tensor, changed, base, samples)
        except Refused:  # of this tensor nothing is known: another one may answer
            continue
        if moved is None:
            continue
        if any(bool(rows.any()) for rows in moved.outputs.values()):
            for name, rows in moved.outputs.items():
                read.setdefault(name, []).append(rows)
        else:
            targets.append(tensor)
            for name, rows in moved.gradients.items():
                answered.setdefault(name, []).append(rows)
    paired = None
    for name in read.keys() & answered.keys():
        inputs, answers = _as_half(read[name], samples), _as_half(answered[name], samples)
        if inputs is None or answers is None:
            continue
        if not torch.equal(inputs, answers):
            return (False, name) if _order_matters(forward, batch, targets, base) else (None, "")
        paired = True
    return paired, ""


def measure_owners(
    task: Task, named: list[tuple[str, nn.Module]], batch: Any, samples: int | None
) -> tuple[str, str] | None:
    """An output of which one row is held against the answers of several samples, element by element, and of which.

    The outputs are kept as they are, and row after row of a tensor gets another value: the elements of the objective's
    gradient that move answer to that row, and to no other. A loss that compares samples moves all with each of them.
    """
    if samples is None or samples < 3:
        return None
    with freed(named) as free:

        def gradients(given: Any) -> dict[str, Tensor]:
            free.begin()
            with torch.enable_grad(), users_code():
                objective = task.forward(given)[1]["objective"]
                leaves = {place: leaf for place, leaf in free.leaves.items() if leaf.shape[0] == samples}
                if not leaves or not objective.requires_grad:
                    return {}
                found = torch.autograd.grad(objective, list(leaves.values()), allow_unused=True)
            pairs = zip(leaves, found, strict=True)
            return {place[2].removeprefix("output."): g for place, g in pairs if g is not None and g.dim() > 1}

        base = gradients(batch)
        rows = range(min(samples, MOST_ROWS))
        for key, tensor in dense_tensors(batch)[:MOST_TENSORS] if base else ():
            if not tensor.dim() or tensor.shape[0] != samples:
                continue
            now = []
            with contextlib.suppress(Refused):
                now = [gradients(_with_row_exchanged(batch, tensor, row)) for row in rows]
            for name, old in base.items():
                if all(name in each for each in now) and _belong_to_several([_parts(old, each[name]) for each in now]):
                    return name, key
    return None


def _with_row_exchanged(batch: Any, tensor: Tensor, row: int) -> Any:
    """The batch with one row of a tensor replaced by the first other one that differs."""
    changed = tensor.detach().clone()
    others = (changed != changed[row]).reshape(len(changed), -1).any(1).nonzero()
    if len(others):
        changed[row] = changed[int(others[0])]
    return map_tensors(lambda t: changed if t is tensor else t, batch)


def _parts(old: Tensor, new: Tensor) -> Tensor:
    """Which elements moved, by sample and by what lies within it."""
    return ((new - old).abs() > STILL * float(old.abs().max())).flatten(1)


def _belong_to_several(moved: list[Tensor]) -> bool:
    """Whether elements of one row answer to different samples each, and the columns of an axis of samples do not."""
    if not moved or not all(bool(each.any()) for each in moved):
        return False
    counts = torch.stack(moved).sum(0)
    rows = torch.stack([each.any(1) for each in moved]).sum(0)
    columns = torch.stack([each.any(0) for each in moved]).sum(0)
    return int(counts.max()) == 1 and int(rows.max()) > 1 and int(columns.max()) > 1


def compares_outputs_directly(batch: Any, calls: list[ModelCall], targets: list[Tensor], mixed: float | None) -> bool:
    """Whether a model that reads every sample by itself and a loss were given the batch as it is."""
    held = [tensor.detach() for _, tensor in dense_tensors(batch)]
    given = [tensor for call in calls for _, tensor in call.arguments()] + targets
    plain = mixed is not None and mixed <= MOVED and bool(targets)
    return plain and all(
        any(tensor.numel() == h.numel() and torch.equal(tensor.reshape(-1), h.reshape(-1)) for h in held)
        for tensor in given
    )


@dataclass(frozen=True)
class _Base:
    objective: float
    outputs: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


def _measured(forward: Forward, batch: Any) -> _Base | None:
    heard, terms = forward(batch)
    outputs = {name: tensor for name, tensor in heard if is_real(tensor) and tensor.requires_grad}
    objective = terms["objective"]
    if not outputs or not objective.requires_grad:
        return None
    with users_code():
        found = torch.autograd.grad(objective, list(outputs.values()), allow_unused=True)
    gradients = {name: g for name, g in zip(outputs, found, strict=True) if g is not None}
    value = float(objective.detach())
    plain = {name: tensor.detach() for name, tensor in outputs.items()}
    return _Base(value, plain, gradients) if math.isfinite(value) else None


def _half_exchanged(tensor: Tensor) -> Tensor | None:
    """Every row of the first half becomes another row that differs from it; None where there is none."""
    plain = tensor.detach()
    rows = plain.reshape(len(plain), -1)
    changed = plain.clone()
    for index in range(len(plain) // 2):
        others = (rows != rows[index]).any(1).nonzero().flatten()
        if not len(others):
            return None
        changed[index] = plain[int(others[-1 - index % len(others)])]
    return changed


def _moved(forward: Forward, batch: Any, tensor: Tensor, changed: Tensor, base: _Base, samples: int) -> _Rows | None:
    now = _measured(forward, map_tensors(lambda t: changed if t is tensor else t, batch))
    if now is None:
        return None
    return _Rows(
        _rows_that_moved(base.outputs, now.outputs, samples), _rows_that_moved(base.gradients, now.gradients, samples)
    )


def _rows_that_moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor], samples: int) -> dict[str, Tensor]:
    found = {}
    for name, old in before.items():
        new = after.get(name)
        if new is None or new.shape != old.shape or not old.dim() or old.shape[0] != samples:
            continue
        gap = (new - old).abs().reshape(samples, -1).amax(1)
        found[name] = gap > STILL * float(old.abs().max())
    return found


def _as_half(moves: list[Tensor], samples: int) -> Tensor | None:
    """The half of the rows that moves, the same for every tensor that moves a half; lengths may reorder them all."""
    halves = [rows for rows in moves if int(rows.sum()) == samples // 2]
    return halves[0] if halves and all(torch.equal(rows, halves[0]) for rows in halves) else None


def _order_matters(forward: Forward, batch: Any, targets: list[Tensor], base: _Base) -> bool:
    """Whether the objective climbs when the targets come in another order: a loss over a set does not."""
    ids = {id(tensor) for tensor in targets}
    turned = _measured(forward, map_tensors(lambda t: t.detach().roll(1, 0) if id(t) in ids else t, batch))
    return turned is not None and turned.objective > base.objective + 0.1 * abs(base.objective)
