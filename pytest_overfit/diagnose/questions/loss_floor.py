"""The loss on its own: its predictions become free numbers, and it is minimised over them.

What it cannot reach then, no model can; what it can reach then is the model's or the optimizer's to reach.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import SAME_FLOOR, Floor
from pytest_overfit.diagnose.questions.held_outputs import Free, freed
from pytest_overfit.diagnose.questions.loss_terms import another
from pytest_overfit.errors.asking import Unanswerable, users_code
from pytest_overfit.run.batch import map_tensors
from pytest_overfit.run.task import Task

STEPS = 400
NOWHERE = 0.5  # of the start: a search that gets no further
STRETCHES = (1e2, 1e3, 1e4, 1e5, 1e6)
LAST = 1e-4  # share of the first step size that the last step still has
MORE = 0.1  # of the way that one prediction brings an objective down: what it falls further a hundred times as large
FALLS = 0.02  # of the way: a search that goes on to fall by more has not ended


class Search:
    """Minimises the objective over free predictions, each in steps of its own ``sizes``.

    A search that its clock ends is an ``Unanswerable``, or a slower machine would say something else.
    """

    def __init__(
        self, task: Task, free: Free, scales: Mapping[int, float], limit: float | None, until: float, ran: float
    ) -> None:
        self.task, self.free, self.limit, self.until = task, free, limit, until
        # What the run brought below zero goes on through it: a value near zero ends no search then.
        self.enough = 0.2 * limit if limit is not None and limit > 0 and ran >= 0 else 0.0
        self.first = self.objective()
        self.leaves, self.names = list(free.leaves.values()), [x[2].removeprefix("output.") for x in free.leaves]
        own = [max(1.0, float(leaf.detach().abs().mean())) for leaf in self.leaves]
        self.sizes = [scales.get(leaf.numel(), size) for leaf, size in zip(self.leaves, own, strict=True)]
        self.began = [leaf.detach().clone() for leaf in self.leaves]

    def objective(self, batch: Any = None) -> Tensor:
        """With the predictions as they are now, of the run's batch or another one."""
        self.free.begin()
        with torch.enable_grad(), users_code():
            return self.task.forward(self.task.batch if batch is None else batch)[1]["objective"]

    def put(self, values: list[Tensor]) -> None:
        """Gives the predictions these values."""
        with torch.no_grad():
            for leaf, value in zip(self.leaves, values, strict=True):
                leaf.copy_(value)

    def shuffle(self) -> None:
        """Gives them random values of their sizes."""
        generator = torch.Generator().manual_seed(0)
        self.put([s * torch.randn(x.shape, generator=generator) for x, s in zip(self.leaves, self.sizes, strict=True)])

    def minimise(self, steps: int = STEPS, *, decays: bool = True, only: Collection[int] | None = None) -> list[float]:
        """The objective along the way, over some of the predictions or all; they keep their best values."""
        chosen = [i for i in range(len(self.leaves)) if only is None or i in only]
        rates = {i: 0.1 * self.sizes[i] for i in chosen}
        optimizer = torch.optim.Adam([{"params": [self.leaves[i]], "lr": rates[i]} for i in chosen])
        curve: list[float] = []
        kept, shrunk = [leaf.detach().clone() for leaf in self.leaves], 1.0
        for step in range(steps):
            decay = 0.5 * (1 + math.cos(math.pi * step / steps)) + LAST if decays else 1.0
            for group, i in zip(optimizer.param_groups, chosen, strict=True):
                group["lr"] = rates[i] * decay * shrunk  # an absolute error is never met by a large step
            optimizer.zero_grad()
            objective = self.objective()
            value = float(objective.detach())
            if not math.isfinite(value):  # free numbers may leave the range that a model keeps to
                shrunk *= 0.2
                if shrunk < 1e-4:
                    break
                optimizer.state.clear()
                self.put(kept)
                continue
            if not curve or value < min(curve):
                kept = [leaf.detach().clone() for leaf in self.leaves]
            curve.append(value)
            if decays and 0 <= value < self.enough:
                break
            if time.perf_counter() > self.until:
                raise Unanswerable("a search over free predictions had no time to end")
            with users_code():
                objective.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.put(kept)
        return curve

    def stretched(self, reached: float) -> tuple[float, float]:
        """The objective that the best numbers reach, and how many times as large they have to be for it.

        Asked where the search got nowhere: from numbers that are right already a larger size always comes nearer to 0.
        """
        best, start = [leaf.detach().clone() for leaf in self.leaves], float(self.first.detach())
        for factor in STRETCHES if self.limit is not None and reached > max(self.limit, NOWHERE * start) else ():
            self.put([factor * leaf for leaf in best])
            value = float(self.objective().detach())
            self.put(best)
            if self.limit is not None and value < self.limit:
                return value, factor
        return reached, 1.0

    def is_bottomless(self, index: int) -> bool:
        """Whether one prediction alone brings the objective down without end.

        Faster than its logarithm would; or as that would, where the best numbers are better still a hundred times as
        large.
        """
        self.put(self.began)
        curve = self.minimise(STEPS // 2, decays=False, only=[index])
        half = len(curve) // 2
        if not half or min(curve[half:]) < min(curve[:half]) - 0.5 * (curve[0] - min(curve[:half])):
            return half > 0
        with torch.no_grad():
            self.leaves[index].mul_(STRETCHES[0])
        return float(self.objective().detach()) < min(curve) - MORE * (curve[0] - min(curve))


def find_floor(
    task: Task,
    named: list[tuple[str, nn.Module]],
    *,
    limit: float | None,
    seconds: float,
    scales: Mapping[int, float],
    ran: float,
    standing: Collection[str] = (),
) -> Floor | None:
    """The lowest objective over free predictions; None where the loss does not read what the modules return.

    A search that ends above the limit while it still falls, or above what the run reached, is an ``Unanswerable``.

    Args:
        named: the modules whose outputs become free.
        limit: what it would have to reach, to stop early.
        scales: of a target with so many numbers the size; an output with as many is searched in steps of it.
        ran: the lowest objective of the run; of one below zero it is asked too which output alone brings it there.
        standing: the outputs that have no graph; with those as they are it is minimised over the others once more.
    """
    with freed(named) as free:
        search = Search(task, free, scales, limit, time.perf_counter() + seconds, ran)
        objective, leaves, names = search.first, search.leaves, search.names
        start = float(objective.detach())
        if not leaves or not objective.requires_grad or not math.isfinite(start):
            return None
        read = _read(objective, leaves)
        parameters = [p for p in task.model.parameters() if p.requires_grad]
        curve = search.minimise()
        if not curve:
            return None
        best = {name: leaf.detach().clone() for name, leaf in zip(names, leaves, strict=True)}
        reached, stretch = search.stretched(min(curve))
        within = limit is not None and 0 <= reached < limit
        more = 0.0 if within else reached - min(search.minimise(STEPS // 10, decays=False), default=reached)
        missed = limit is not None and limit < reached
        penalty = _penalty(search, parameters) if parameters and any(_read(objective, parameters)) else 0.0
        if limit is not None and missed:
            _refuse_unended(limit, reached, ran, more, 0.5 * (start - min(curve[: STEPS // 10])))
            search.shuffle()
        elsewhere = min(search.minimise(), default=None) if missed else None
        endless = reached < 0 and more > FALLS * (start - reached)
        asked = ran < 0 and (endless or (reached < 0 and sum(read) == 1))
        alone = [n for i, n in enumerate(names) if asked and read[i] and search.is_bottomless(i)]
        held = _without(search, [i for i, name in enumerate(names) if read[i] and name in standing]) if within else {}
    return Floor(
        reached=min(reached, ran) if missed else reached,
        start=start,
        steps=len(curve),
        unbounded=endless,
        alone=tuple(alone),
        held=held,
        low={name: float(t.min()) for name, t in best.items() if t.numel()},
        high={name: float(t.max()) for name, t in best.items() if t.numel()},
        unread=tuple(name for name, is_read in zip(names, read, strict=True) if not is_read),
        reads_weights=limit is not None and penalty > 0.5 * (reached - limit),
        elsewhere=elsewhere,
        stretch=stretch,
    )


def _refuse_unended(limit: float, reached: float, ran: float, more: float, early: float) -> None:
    """Refuses a search that ends above the limit and still falls by ``more``, or that the run got below."""
    falls = more > min(FALLS * (reached - limit), max(early, 0.0) or math.inf)
    if falls or ran - limit < (1 - SAME_FLOOR) * (reached - limit):
        raise Unanswerable("a search over free predictions still falls where it ends, or the run got below it")


def _without(search: Search, standing: Sequence[int]) -> Mapping[str, float]:
    """The lowest objective with these predictions as they were, by their names; empty where there are no others.

    Of those alone that are compared with the batch: a teacher's are what another prediction is compared with.
    """
    others = [i for i in range(len(search.leaves)) if i not in standing]
    if not standing or not others:
        return {}
    search.put(search.began)
    leaves, batch = [search.leaves[i] for i in standing], map_tensors(_exchanged, search.task.batch)
    pairs = zip(standing, _slopes(search.objective(), leaves), _slopes(search.objective(batch), leaves), strict=True)
    asked = [i for i, here, there in pairs if here is not None and (there is None or not torch.equal(here, there))]
    lowest = min(search.minimise(only=others), default=math.inf) if asked else math.inf
    return {search.names[i]: lowest for i in asked}


def _exchanged(tensor: Tensor) -> Tensor:
    """Other numbers, and labels of the sample before."""
    return another(tensor) if tensor.is_floating_point() or not tensor.dim() else tensor.roll(1, 0)


def _penalty(search: Search, parameters: Sequence[nn.Parameter]) -> float:
    """By how much the objective falls once all weights are 0: what it reads of them, beside the outputs."""
    kept, before = [p.detach().clone() for p in parameters], float(search.objective().detach())
    try:
        with torch.no_grad():
            for parameter in parameters:
                parameter.zero_()
        after = float(search.objective().detach())
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
    return before - after if math.isfinite(after) else 0.0


def _read(objective: Tensor, tensors: Sequence[Tensor]) -> list[bool]:
    """Of which of these tensors the objective has a gradient that is not zero."""
    return [gradient is not None and bool((gradient != 0).any()) for gradient in _slopes(objective, tensors)]


def _slopes(objective: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor | None]:
    with users_code():
        return torch.autograd.grad(objective, list(tensors), allow_unused=True, retain_graph=True)
