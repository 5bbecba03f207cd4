"""The loss on its own: its predictions become free numbers, and it is minimised over them.

What it cannot reach then, no model can; what it can reach then is the model's or the optimizer's to reach.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import Floor
from pytest_overfit.diagnose.questions.tensors import is_real
from pytest_overfit.errors.asking import users_code
from pytest_overfit.run.task import Task

STEPS = 400
HUGE = 1e4
NOWHERE = 0.5  # of the start: a search that gets no further
STRETCHES = (1e2, 1e3, 1e4, 1e5, 1e6)
LAST = 1e-4  # share of the first step size that the last step still has


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


def find_floor(
    task: Task, named: list[tuple[str, nn.Module]], *, limit: float | None, seconds: float, scale: float
) -> Floor | None:
    """The lowest objective over free predictions; None where the loss does not read what the modules return.

    Args:
        named: the modules whose outputs become free.
        limit: what it would have to reach, to stop early.
        scale: a typical size of the targets.
    """
    until = time.perf_counter() + seconds
    with freed(named) as free:

        def terms() -> dict[str, Tensor]:
            free.begin()
            with torch.enable_grad(), users_code():
                return task.forward(task.batch)[1]

        first = terms()
        start = float(first["objective"].detach())
        leaves = list(free.leaves.values())
        if not leaves or not first["objective"].requires_grad or not math.isfinite(start):
            return None
        with users_code():
            gradients = torch.autograd.grad(first["objective"], leaves, allow_unused=True, retain_graph=True)
        unread = tuple(
            place[2].removeprefix("output.")
            for place, gradient in zip(free.leaves, gradients, strict=True)
            if gradient is None or not bool((gradient != 0).any())
        )
        parameters = [p for p in task.model.parameters() if p.requires_grad]
        with users_code():
            direct = torch.autograd.grad(first["objective"], parameters, allow_unused=True) if parameters else ()
        reads_weights = any(g is not None and bool((g != 0).any()) for g in direct)
        curve = _minimise(terms, leaves, limit, until, scale)
        elsewhere = None
        if curve and limit is not None and limit < min(curve) and time.perf_counter() < until:
            kept = [leaf.detach().clone() for leaf in leaves]
            elsewhere = _from_elsewhere(terms, leaves, limit, until, scale)
            with torch.no_grad():
                for leaf, value in zip(leaves, kept, strict=True):
                    leaf.copy_(value)
        reached, stretch = (math.inf, 1.0) if not curve else _stretched(terms, leaves, limit, start, min(curve))
        names = {place[2].removeprefix("output."): leaf.detach() for place, leaf in free.leaves.items()}
    if not curve:
        return None
    falling = len(curve) > 50 and curve[-50] - curve[-1] > 0.02 * (abs(curve[0] - curve[-1]) + 1e-12)
    return Floor(
        reached=reached,
        start=start,
        steps=len(curve),
        unbounded=min(curve) < 0 and falling and min(curve) < -0.5 * abs(start),
        low={name: float(t.min()) for name, t in names.items() if t.numel()},
        high={name: float(t.max()) for name, t in names.items() if t.numel()},
        unread=unread,
        reads_weights=reads_weights,
        elsewhere=elsewhere,
        stretch=stretch,
    )


def _stretched(
    terms: Callable[[], dict[str, Tensor]], leaves: list[Tensor], limit: float | None, start: float, reached: float
) -> tuple[float, float]:
    """The objective that the best numbers reach, and how many times as large they have to be for it.

    Asked where the search got nowhere: from numbers that are right already a larger size always comes nearer to 0.
    """
    for factor in STRETCHES if limit is not None and reached > max(limit, NOWHERE * start) else ():
        with torch.no_grad():
            kept = [leaf.detach().clone() for leaf in leaves]
            for leaf in leaves:
                leaf.mul_(factor)
            value = float(terms()["objective"])
            for leaf, old in zip(leaves, kept, strict=True):
                leaf.copy_(old)
        if limit is not None and value < limit:
            return value, factor
    return reached, 1.0


def _from_elsewhere(
    terms: Callable[[], dict[str, Tensor]], leaves: list[Tensor], limit: float, until: float, scale: float
) -> float | None:
    """The lowest objective of a search that starts at random numbers; None where it had no time to end."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for leaf in leaves:
            leaf.copy_(scale * torch.randn(leaf.shape, generator=generator))
    curve = _minimise(terms, leaves, limit, until, scale)
    return min(curve) if len(curve) == STEPS or (curve and min(curve) < limit) else None


def _minimise(
    terms: Callable[[], dict[str, Tensor]], leaves: list[Tensor], limit: float | None, until: float, scale: float
) -> list[float]:
    optimizer = torch.optim.Adam(leaves, lr=0.1 * scale)
    curve: list[float] = []
    kept, shrunk = [leaf.detach().clone() for leaf in leaves], 1.0
    for step in range(STEPS):
        decay = 0.5 * (1 + math.cos(math.pi * step / STEPS)) + LAST  # an absolute error is never met by a large step
        optimizer.param_groups[0]["lr"] = 0.1 * scale * decay * shrunk
        optimizer.zero_grad()
        objective = terms()["objective"]
        value = float(objective.detach())
        if not math.isfinite(value):  # free numbers may leave the range that a model keeps to
            shrunk *= 0.2
            if shrunk < 1e-4:
                break
            optimizer.state.clear()
            with torch.no_grad():
                for leaf, old in zip(leaves, kept, strict=True):
                    leaf.copy_(old)
            continue
        if not curve or value < min(curve):
            kept = [leaf.detach().clone() for leaf in leaves]
        curve.append(value)
        if time.perf_counter() > until or (limit is not None and limit > 0 and 0 <= value < 0.2 * limit):
            break
        with users_code():
            objective.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return curve
