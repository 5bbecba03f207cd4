"""Which part of the global batch a rank trains on: its shard, where the mean over the shards is the same training.

A mean of shard means is the mean of the whole for most losses and not for all: uneven masks, padding, contrast among
samples, batch statistics and dropout tell the difference. So it is measured, at the state before the first step.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.batch import map_tensors, named_tensors
from pytest_overfit.run.gradient_watch import own_part
from pytest_overfit.run.isolation import restored_process, seed_everything
from pytest_overfit.run.task import Task
from pytest_overfit.run.update import Detached, into_training

if TYPE_CHECKING:
    from pytest_overfit.run.ranks.group import Ranks

TERM_TOLERANCE = 1e-5  # relative: what another order of summing in float32 leaves is below it
GRADIENT_TOLERANCE = 1e-4
Gradients = list["Tensor | None"]


def shard_of(batch: Any, rank: int, size: int) -> Any | None:
    """The samples of one rank, in order; None where the axis of samples does not divide.

    Example:
        >>> shard_of({"x": torch.arange(4), "scale": torch.tensor(2.0)}, 1, 2)
        {'x': tensor([2, 3]), 'scale': tensor(2.)}
    """
    leading = [tensor.shape[0] for _, tensor in named_tensors(batch) if tensor.dim() and tensor.layout is torch.strided]
    if not leading:
        return None
    length = Counter(leading).most_common(1)[0][0]
    if length < size or length % size:
        return None
    share = length // size

    def cut(tensor: Tensor) -> Tensor:
        if not tensor.dim() or tensor.shape[0] != length:
            return tensor
        part = tensor.detach()[rank * share : (rank + 1) * share].clone()
        return part.requires_grad_() if tensor.requires_grad else part

    return map_tensors(cut, batch)


def unused_parameters(task: Task, seed: int) -> bool:
    """Whether one step of the whole batch leaves a trainable parameter without a gradient."""
    with aside(task.model, seed), contextlib.suppress(Detached):
        _, gradients = _step(task, task.batch)
        return any(gradient is None for gradient in gradients)
    return False


def shards_train_alike(ranks: Ranks, task: Task, seed: int, *, reduced: bool) -> bool:
    """Whether the mean over the shards has the loss terms and the gradients of the whole batch. A collective.

    Args:
        reduced: the gradients are averaged over the ranks by the model itself, as FSDP's are.
    """
    part = shard_of(task.batch, ranks.rank, ranks.size)
    if part is None:
        return False
    with aside(task.model, seed):
        whole = _tried(task, task.batch, seed)
        shard = _tried(task, part, seed)
        if ranks.any_of(True if whole is None or shard is None else None):
            return False
        assert whole is not None
        assert shard is not None
        same = _same_terms(ranks, whole[0], shard[0]) and _same_gradients(ranks, whole[1], shard[1], reduced=reduced)
        return ranks.any_of(None if same else True) is None


@contextlib.contextmanager
def aside(model: nn.Module, seed: int) -> Iterator[None]:
    """Generators, buffers and modes come back after the block, gradients are gone."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    with restored_process():
        seed_everything(seed)
        into_training(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            for module, mode in modes:
                module.training = mode
            for parameter in model.parameters():
                parameter.grad = None


def _tried(task: Task, batch: Any, seed: int) -> tuple[dict[str, float], Gradients] | None:
    """Loss terms and gradients of one step; None where the model or the loss refuses the batch."""
    seed_everything(seed)
    try:
        with users_code():
            return _step(task, batch)
    except (Refused, Detached):
        return None


def _step(task: Task, batch: Any) -> tuple[dict[str, float], Gradients]:
    for parameter in task.model.parameters():
        parameter.grad = None
    _, terms = task.forward(batch)
    task.heard.clear()
    if not terms["objective"].requires_grad:
        raise Detached
    terms["objective"].backward()  # type: ignore[no-untyped-call]
    gradients = [None if p.grad is None else own_part(p.grad) for p in task.model.parameters() if p.requires_grad]
    return {name: float(value.detach()) for name, value in terms.items()}, gradients


def _same_terms(ranks: Ranks, whole: dict[str, float], shard: dict[str, float]) -> bool:
    if whole.keys() != shard.keys():
        shard = dict.fromkeys(whole, float("nan"))
    mean = ranks.total(torch.tensor(list(shard.values()), dtype=torch.float64)) / ranks.size
    there = torch.tensor(list(whole.values()), dtype=torch.float64)
    return bool(((mean - there).abs() <= TERM_TOLERANCE * there.abs().clamp(min=1e-2)).all())


def _same_gradients(
    ranks: Ranks, whole: Sequence[Tensor | None], shard: Sequence[Tensor | None], *, reduced: bool
) -> bool:
    same = True
    for there, part in zip(whole, shard, strict=True):
        if there is None or part is None:
            same = same and there is None and part is None
            continue
        mean = part if reduced else ranks.total(part.detach().clone().contiguous()) / ranks.size
        gap = torch.linalg.vector_norm(mean - there)
        same = same and bool(gap <= GRADIENT_TOLERANCE * torch.linalg.vector_norm(there) + 1e-12)
    return same
