"""Is an input turned by chance, and its target not? Then the trained model gives one answer for both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.pairs import TurnedByChance
from pytest_overfit.diagnose.questions.dependence import evaluated
from pytest_overfit.diagnose.questions.own_answers import MOST_PLACES, generator_states
from pytest_overfit.diagnose.questions.tensors import dense_tensors, is_real, tensors_in
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.update import into_training

MOST_SEEDS, LEAST = 6, 4
LARGEST = 1_000_000  # elements of a sample whose order is looked at
Order = tuple[int, Tensor]  # an axis, and the order of its places


def measure_drawn_order(on: RunContext, named: list[tuple[str, nn.Module]]) -> TurnedByChance | None:
    """A tensor of the batch that reaches a module in an order which is drawn, and what the objective makes of it.

    Args:
        named: the modules whose parts are listened to, in training mode.
    """
    batch, found, plain = on.task.batch, dict[int, Order](), False
    pairs = list(_pairs(batch))
    into_training(on.task.model)
    for seed in range(on.seed, on.seed + MOST_SEEDS) if pairs else ():
        seed_everything(seed)
        before = generator_states()
        here, whole = _turned(on.forward, named, [t for _, t, _, _, _ in pairs])
        plain |= not whole
        found.update(here)
        if before == generator_states() or (plain and found):
            break
    if not plain:
        return None  # everything always is: a layout

    def objective(news: dict[int, Tensor]) -> float:
        changed = map_tensors(lambda t: news.get(id(t), t), batch)
        return float(evaluated(on)(changed)[1]["objective"].detach())

    for key, tensor, name, target, axes in pairs:
        axis, order = found.get(id(tensor), (0, None))
        if order is None or axis != axes[0]:
            continue
        other, wanted = tensor.detach().index_select(axis, order), target.detach().index_select(axes[1], order)
        if not wanted.equal(target):
            alone = {id(tensor): other}
            values = objective({}), objective(alone), objective({**alone, id(target): wanted})
            return TurnedByChance(key, name, axis, *values)
    return None


def _pairs(batch: Any) -> Iterator[tuple[str, Tensor, str, Tensor, tuple[int, int]]]:
    """Numbers of the batch, with another tensor that has an axis of theirs, counted from the first or from the last."""
    whole = [(key, t) for key, t in dense_tensors(batch) if t.dim() > 1]
    for key, tensor in whole:
        for name, target in whole if is_real(tensor) and tensor.dim() > 2 else ():
            for axis in range(1, tensor.dim()) if target is not tensor and len(target) == len(tensor) else ():
                others = dict.fromkeys((axis, target.dim() - tensor.dim() + axis))
                places = tensor.shape[axis]
                if at := [o for o in others if 1 <= o < target.dim() and target.shape[o] == places >= LEAST]:
                    yield key, tensor, name, target, (axis, at[-1])


def _turned(
    look: Callable[[], Any], named: list[tuple[str, nn.Module]], asked: list[Tensor]
) -> tuple[dict[int, Order], bool]:
    """Of these tensors, those that a module is given in another order; and whether all samples of one are."""
    found: dict[int, Order] = {}
    whole: list[bool] = []
    every = {id(m): m for _, module in named for m in module.modules() if not isinstance(m, torch.jit.ScriptModule)}

    def hear(module: nn.Module, args: Any, kwargs: Any) -> None:
        for given, tensor in itertools.product(tensors_in((args, kwargs)), asked):
            if id(tensor) not in found and is_real(given) and given.shape == tensor.shape:
                changed = (tensor != given).flatten(1).any(1)
                rows = changed.nonzero()[:1, 0].tolist()
                if rows and (order := _order(tensor.detach()[rows[0]], given.detach()[rows[0]])) is not None:
                    found[id(tensor)] = order
                    whole.append(bool(changed.all()))

    handles = [nn.Module.register_forward_pre_hook(m, hear, with_kwargs=True) for m in every.values()]
    try:
        look()
    finally:
        for handle in handles:
            handle.remove()
    return found, bool(whole) and all(whole)


def _order(old: Tensor, new: Tensor) -> Order | None:
    """The axis along which a sample has its places in another order, counted with that of samples, and the order."""
    for axis in range(old.dim()) if old.numel() <= LARGEST else ():
        if LEAST <= old.shape[axis] <= MOST_PLACES:
            a, b = (t.movedim(axis, 0).flatten(1) for t in (old, new))
            same = torch.stack([(a == each).all(1) for each in b])
            if bool((same.sum(0) == 1).all()) and bool((same.sum(1) == 1).all()):
                return axis + 1, same.int().argmax(1)
    return None
