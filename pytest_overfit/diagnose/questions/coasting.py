"""How far the weights go on by what an optimizer remembers, once their gradients are gone."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch.optim import Optimizer

from pytest_overfit.diagnose.movement import Coasting

STEPS, LARGE = 50, 2**18


def measure_coasting(optimizers: Iterable[Optimizer], named: Mapping[int, str]) -> Coasting | None:
    """A weight that 50 steps without a gradient move by ever more; a copy of it, with what the optimizer knows of it.

    Asked of one weight of a group whose second average forgets faster than its first.

    Args:
        named: the names of the model's parameters, by their ids.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            first, second = betas if len(betas := group.get("betas", ())) == 2 else (0.0, 1.0)
            held = [p for p in group["params"] if id(p) in named and p in optimizer.state and p.numel() <= LARGE]
            if not held or not second < first:
                continue
            p = max(held, key=torch.numel)
            start = p.detach().clone()
            weight = torch.nn.Parameter(start.clone())
            weight.grad = torch.zeros_like(start)
            apart = type(optimizer)([{**group, "params": [weight]}], lr=group["lr"])  # type: ignore[call-arg]
            apart.state[weight] = copy.deepcopy(optimizer.state[p])
            steps = []
            for _ in range(STEPS):
                before = weight.detach().clone()
                apart.step()
                steps.append(float((weight.detach() - before).norm()))
            if steps[0] > 0:
                moved = float((weight.detach() - start).norm() / start.norm().clamp(min=1e-12))
                return Coasting(named[id(p)], moved, max(steps) / steps[0])
    return None
