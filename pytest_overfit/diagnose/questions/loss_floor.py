"""The loss on its own: its predictions become free numbers, and it is minimised over them.

What it cannot reach then, no model can; what it can reach then is the model's or the optimizer's to reach.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.causes.loss_function import SAME
from pytest_overfit.diagnose.evidence import Floor
from pytest_overfit.diagnose.questions.tensors import is_real
from pytest_overfit.errors.asking import Unanswerable, users_code
from pytest_overfit.run.task import Task

STEPS = 400
HUGE = 1e4
LAST = 1e-4  # share of the first step size that the last step still has
FALLS = 0.02  # of the way: a search that goes on to fall by more has not ended


class Free:
    """The outputs of the root modules, replaced by leaves that are kept from call to call."""

    def __init__(self) -> None:
        self.leaves: dict[tuple[int, int, str], Tensor] = {}
        self.counts: dict[int, int] = {}
        self.stored: dict[tuple[int, int], Any] = {}

    def begin(self) -> None:
        self.counts.clear()

    def output(self, name: str, module: nn.Module, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        call = self.counts.get(id(module), 0)
        self.counts[id(module)] = call + 1
        key = (id(module), call)
        if key not in self.stored:
            with torch.no_grad():
                self.stored[key] = original(*args, **kwargs)
        return self._replaced(self.stored[key], key, name or "output")

    def _replaced(self, nest: Any, key: tuple[int, int], path: str) -> Any:
        if is_real(nest) and nest.dim():  # a single number is the loss itself, of a model that computes its own
            place = (*key, path)
            if place not in self.leaves:
                self.leaves[place] = _sane(nest).requires_grad_()
            return self.leaves[place] * 1  # a view of a leaf that in-place code may write into
        if isinstance(nest, dict):
            return (
                type(nest)({k: self._replaced(v, key, f"{path}.{k}") for k, v in nest.items()})
                if type(nest) is dict
                else _filled(nest, {k: self._replaced(v, key, f"{path}.{k}") for k, v in nest.items()})
            )
        if isinstance(nest, tuple) and hasattr(nest, "_fields"):
            return type(nest)(*(self._replaced(v, key, f"{path}.{i}") for i, v in enumerate(nest)))
        if isinstance(nest, (list, tuple)):
            return type(nest)(self._replaced(v, key, f"{path}.{i}") for i, v in enumerate(nest))
        return nest


def _filled(mapping: Any, values: dict[str, Any]) -> Any:
    for key, value in values.items():
        mapping[key] = value
    return mapping


def _sane(tensor: Tensor) -> Tensor:
    """Where free numbers start: what the model said, or zeros where that is nothing to start from."""
    plain = tensor.detach().clone().float()
    sound = bool(torch.isfinite(plain).all()) and float(plain.abs().max()) < HUGE if plain.numel() else False
    return plain if sound else torch.zeros_like(plain)


@contextlib.contextmanager
def freed(named: list[tuple[str, nn.Module]]) -> Iterator[Free]:
    """The outputs of these modules, replaced by leaves with the values that they have in their first call."""
    free = Free()

    def instead(name: str, module: nn.Module) -> Callable[..., Any]:
        original = module.forward
        return lambda *args, **kwargs: free.output(name, module, original, args, kwargs)

    own = [(module, vars(module).get("forward")) for _, module in named]
    try:
        for name, module in named:
            vars(module)["forward"] = instead(name, module)
        yield free
    finally:
        for module, forward in own:
            vars(module).pop("forward", None)
            if forward is not None:
                vars(module)["forward"] = forward


class Search:
    """Minimises the objective over free predictions, each in steps of its own ``sizes``.

    A search that its clock ends is an ``Unanswerable``, or a slower machine would say something else.
    """

    def __init__(self, task: Task, free: Free, scales: Mapping[int, float], limit: float | None, until: float) -> None:
        self.task, self.free, self.limit, self.until = task, free, limit, until
        self.first = self.objective()
        self.leaves, self.names = list(free.leaves.values()), [x[2].removeprefix("output.") for x in free.leaves]
        own = [max(1.0, float(leaf.detach().abs().mean())) for leaf in self.leaves]
        self.sizes = [scales.get(leaf.numel(), size) for leaf, size in zip(self.leaves, own, strict=True)]
        self.began = [leaf.detach().clone() for leaf in self.leaves]

    def objective(self) -> Tensor:
        """With the predictions as they are now."""
        self.free.begin()
        with torch.enable_grad(), users_code():
            return self.task.forward(self.task.batch)[1]["objective"]

    def put(self, values: list[Tensor]) -> None:
        """Gives the predictions these values."""
        with torch.no_grad():
            for leaf, value in zip(self.leaves, values, strict=True):
                leaf.copy_(value)

    def shuffle(self) -> None:
        """Gives them random values of their sizes."""
        generator = torch.Generator().manual_seed(0)
        self.put([s * torch.randn(x.shape, generator=generator) for x, s in zip(self.leaves, self.sizes, strict=True)])

    def minimise(self, steps: int = STEPS, *, decays: bool = True, only: int | None = None) -> list[float]:
        """The objective along the way, over one of the predictions or all; they keep their best values."""
        chosen = [i for i in range(len(self.leaves)) if only in (None, i)]
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
            if decays and self.limit is not None and self.limit > 0 and 0 <= value < 0.2 * self.limit:
                break
            if time.perf_counter() > self.until:
                raise Unanswerable("a search over free predictions had no time to end")
            with users_code():
                objective.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.put(kept)
        return curve

    def is_bottomless(self, index: int) -> bool:
        """Whether one prediction alone brings the objective down without end: faster than its logarithm would."""
        self.put(self.began)
        curve = self.minimise(STEPS // 2, decays=False, only=index)
        half = len(curve) // 2
        return half > 0 and min(curve[half:]) < min(curve[:half]) - 0.5 * (curve[0] - min(curve[:half]))


def find_floor(
    task: Task,
    named: list[tuple[str, nn.Module]],
    *,
    limit: float | None,
    seconds: float,
    scales: Mapping[int, float],
    ran: float,
) -> Floor | None:
    """The lowest objective over free predictions; None where the loss does not read what the modules return.

    A search that ends above the limit while it still falls, or above what the run reached, is an ``Unanswerable``.

    Args:
        named: the modules whose outputs become free.
        limit: what it would have to reach, to stop early.
        scales: of a target with so many numbers the size; an output with as many is searched in steps of it.
        ran: the lowest objective of the run; of one below zero it is asked too which output alone brings it there.
    """
    with freed(named) as free:
        search = Search(task, free, scales, limit, time.perf_counter() + seconds)
        objective, leaves, names = search.first, search.leaves, search.names
        start = float(objective.detach())
        if not leaves or not objective.requires_grad or not math.isfinite(start):
            return None
        read = _read(objective, leaves)
        parameters = [p for p in task.model.parameters() if p.requires_grad]
        reads_weights = any(_read(objective, parameters)) if parameters else False
        curve = search.minimise()
        if not curve:
            return None
        reached, best = min(curve), [leaf.detach().clone() for leaf in leaves]
        within = limit is not None and 0 <= reached < limit
        more = 0.0 if within else reached - min(search.minimise(STEPS // 10, decays=False), default=reached)
        missed = limit is not None and limit < reached
        if limit is not None and missed:
            if more > FALLS * (reached - limit) or ran - limit < (1 - SAME) * (reached - limit):
                raise Unanswerable("a search over free predictions still falls where it ends, or the run got below it")
            search.shuffle()
        elsewhere = min(search.minimise(), default=None) if missed else None
        endless = reached < 0 and more > FALLS * (start - reached)
        alone = [n for i, n in enumerate(names) if endless and ran < 0 and read[i] and search.is_bottomless(i)]
    return Floor(
        reached=min(reached, ran) if missed else reached,
        start=start,
        steps=len(curve),
        unbounded=endless,
        alone=tuple(alone),
        low={name: float(t.min()) for name, t in zip(names, best, strict=True) if t.numel()},
        high={name: float(t.max()) for name, t in zip(names, best, strict=True) if t.numel()},
        unread=tuple(name for name, is_read in zip(names, read, strict=True) if not is_read),
        reads_weights=reads_weights,
        elsewhere=elsewhere,
    )


def _read(objective: Tensor, tensors: Sequence[Tensor]) -> list[bool]:
    """Of which of these tensors the objective has a gradient that is not zero."""
    with users_code():
        gradients = torch.autograd.grad(objective, list(tensors), allow_unused=True, retain_graph=True)
    return [gradient is not None and bool((gradient != 0).any()) for gradient in gradients]
