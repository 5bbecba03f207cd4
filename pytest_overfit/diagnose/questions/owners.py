"""Does every row of an output answer to one sample, or do its elements answer to several?"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.questions.loss_floor import freed
from pytest_overfit.diagnose.questions.tensors import dense_tensors
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.task import Task

STILL = 1e-4  # relative: a row that moves less was only computed in another batch
MOST_ROWS = 4  # of a tensor that are exchanged one by one
MOST_TENSORS = 8  # of a batch: each costs one forward pass


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
