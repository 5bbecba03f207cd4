"""The gradient that a term gives, in two numbers for each parameter: enough to tell it from another one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pytest_overfit.run.elements import numbers_of
from pytest_overfit.run.gradient_watch import named_outputs
from pytest_overfit.run.task import Terms

MOST_TERMS = 8
ROUNDING = 1e-6  # of the largest gradient
Sketch = tuple[float, float]  # the norm, and the sum over the root of the number of elements
Slopes = dict[str, dict[int, list[Sketch]]]  # term -> place of the parameter -> what came in


def slopes_of(model: nn.Module, terms: Terms) -> Slopes:
    """Those of the terms that have a graph."""
    parameters = _learning(model)
    found: Slopes = {}
    for name, value in [(name, value) for name, value in terms.items() if value.requires_grad][:MOST_TERMS]:
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        found[name] = {place: [_sketch(g)] for place, g in enumerate(gradients) if g is not None}
    return found


@contextlib.contextmanager
def arriving(model: nn.Module) -> Iterator[Slopes]:
    """What comes in at the parameters while a step of the user's runs, as that of its objective."""
    found: dict[int, list[Sketch]] = {}

    def arrived(place: int, gradient: Tensor) -> None:
        found.setdefault(place, []).append(_sketch(gradient))

    parameters = enumerate(_learning(model))
    handles = [p.register_hook(partial(arrived, place)) for place, p in parameters]  # type: ignore[no-untyped-call]
    try:
        yield {"objective": found}
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def passing(model: nn.Module) -> Iterator[list[Sketch]]:
    """What layers with weights of their own give, until a first update."""
    found: list[Sketch] = []
    updated: list[bool] = []

    def hear(module: nn.Module, args: Any, output: Any) -> None:
        if not updated:
            found.extend(_sketch(tensor) for _, tensor in named_outputs(output))

    layers = [m for m in model.modules() if any(p is not None for p in m._parameters.values())]
    handles = [register_optimizer_step_pre_hook(lambda *_: updated.append(True))]
    handles += [nn.Module.register_forward_hook(layer, hear) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def turned(before: Slopes, after: Slopes) -> dict[str, float]:
    """The terms whose gradients differ by more than rounding, and by how much."""
    found = {}
    for name, own in before.items():
        other = after.get(name, {})
        size = max((sketch[0] for held in (own, other) for many in held.values() for sketch in many), default=0.0)
        change = max((_apart(own.get(place, ()), other.get(place, ())) for place in {*own, *other}), default=0.0)
        if change > ROUNDING * size:
            found[name] = change
    return found


def _apart(first: Sequence[Sketch], second: Sequence[Sketch]) -> float:
    """The largest difference of two sketches; NaN, which tells nothing, counts as none."""
    if len(first) != len(second):
        return math.inf
    gaps = [abs(a - b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)]
    return max((gap for gap in gaps if not math.isnan(gap)), default=0.0)


def _learning(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad and not is_lazy(p)]


def _sketch(gradient: Tensor) -> Sketch:
    numbers = numbers_of(gradient)
    if numbers is None or not numbers.numel():
        return 0.0, 0.0
    flat = (torch.view_as_real(numbers) if numbers.is_complex() else numbers).double()
    return float(flat.norm()), float(flat.sum()) / math.sqrt(flat.numel())
