"""The loss on its own: its predictions become free numbers, and it is minimised over them.

What it cannot reach then, no model can; what it can reach then is the model's or the optimizer's to reach.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import Floor
from pytest_overfit.diagnose.questions.held_outputs import freed
from pytest_overfit.errors.asking import users_code
from pytest_overfit.run.task import Task

STEPS = 400
STRETCHES = (1e2, 1e3, 1e4, 1e5, 1e6)
LAST = 1e-4  # share of the first step size that the last step still has


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
        reached, stretch = (math.inf, 1.0) if not curve else _stretched(terms, leaves, limit, min(curve))
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
    terms: Callable[[], dict[str, Tensor]], leaves: list[Tensor], limit: float | None, reached: float
) -> tuple[float, float]:
    """The objective that the best numbers reach, and how many times as large they have to be for it."""
    for factor in () if limit is None or reached <= limit else STRETCHES:
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
