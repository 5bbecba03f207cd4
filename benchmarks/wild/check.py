"""What a mistake does to a plain loop: keeps it from learning, changes it in silence, or nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.operators.operator import Setup
from benchmarks.wild.operators.trace import evaluated

Effect = Literal["breaks", "silent", "nothing"]
LAST = 5  # losses whose mean counts
EARLY = 3  # steps after which two runs are compared
DIFFERS = 0.01  # of what the healthy run does: far above what another order of additions gives, which is below 1e-4


@dataclass(frozen=True)
class Plain:
    """A plain run: its losses, the first gradients, what ``EARLY`` steps made of the state, and how it evaluates."""

    losses: tuple[float, ...]
    gradients: Mapping[str, Tensor]
    start: Mapping[str, Tensor]
    early: Mapping[str, Tensor]
    evaluated: tuple[float, float]

    @property
    def reached(self) -> float:
        """The mean of the last losses."""
        return sum(self.losses[-LAST:]) / len(self.losses[-LAST:])


def train(program: Program, setup: Setup, seed: int) -> Plain:
    """Trains a setup as its user would, without the plugin.

    Raises:
        Exception: whatever the user's code raises.
    """
    model = setup.model
    model.train()
    optimizer = setup.optimizer or program.optimizer([p for p in model.parameters() if p.requires_grad], program.lr)
    torch.manual_seed(seed)
    start, early, gradients = _state(model), {}, {}
    evaluated = (math.nan, math.nan)
    losses = []
    for number in range(program.steps):
        model.train()
        losses.append(_step(setup, optimizer))
        if number == 0:
            gradients = {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
        if number == EARLY - 1:
            early, evaluated = _state(model), _evaluate(setup)
        if not math.isfinite(losses[-1]):
            break
    return Plain(tuple(losses), gradients, start, early, evaluated)


def _step(setup: Setup, optimizer: torch.optim.Optimizer) -> float:
    if setup.step is not None:
        arguments: tuple[Any, ...] = (setup.model, setup.batch, optimizer)[: setup.step.__code__.co_argcount]
        return float(setup.step(*arguments).detach())
    optimizer.zero_grad()
    loss = setup.loss(setup.model, setup.batch)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def _evaluate(setup: Setup) -> tuple[float, float]:
    """The loss in evaluation, twice. The random generator is where it was afterwards."""
    kept = torch.get_rng_state()
    try:
        return evaluated(setup.loss, setup.model, setup.batch)
    finally:
        torch.set_rng_state(kept)


def _state(model: nn.Module) -> dict[str, Tensor]:
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: each.detach().clone() for name, each in named if each.is_floating_point()}


def effect(program: Program, healthy: Plain, broken: Plain) -> Effect:
    """What the mistake does, by the two runs from the same seed."""
    if not math.isfinite(broken.losses[-1]) or not broken.reached < program.limit:
        return "breaks"
    return "silent" if differs(healthy, broken) else "nothing"


def differs(healthy: Plain, broken: Plain) -> bool:
    """Whether losses, gradients, the state after a few steps or evaluation are others than those of the healthy run."""
    pairs = [
        *zip(healthy.losses[:EARLY], broken.losses[:EARLY], strict=True),
        *zip(healthy.evaluated, broken.evaluated, strict=True),
    ]
    if any(abs(a - b) > DIFFERS * max(abs(a), 1e-6) for a, b in pairs if math.isfinite(a) and math.isfinite(b)):
        return True
    if healthy.evaluated[0] == healthy.evaluated[1] and broken.evaluated[0] != broken.evaluated[1]:
        return True
    if math.isnan(healthy.evaluated[0]) != math.isnan(broken.evaluated[0]):
        return True
    zero = {name: torch.zeros_like(each) for name, each in healthy.gradients.items()}
    noise = _noise(healthy.gradients) & _noise(broken.gradients)
    early = {name: each for name, each in healthy.early.items() if name not in noise}
    return _apart(healthy.gradients, broken.gradients, zero) or _apart(early, broken.early, healthy.start)


def _noise(gradients: Mapping[str, Tensor]) -> set[str]:
    """Parameters whose gradient is rounding, such as a bias before a batch norm; Adam makes whole steps of it."""
    sizes = {name: float(each.double().norm()) for name, each in gradients.items()}
    whole = math.hypot(*sizes.values())
    return {name for name, size in sizes.items() if size < 1e-5 * whole}


def _apart(healthy: Mapping[str, Tensor], broken: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is missing, or further from its healthy twin than a share of what that one moved, or of all."""
    whole = math.sqrt(sum(float((healthy[name] - start[name]).double().square().sum()) for name in healthy))
    for name, each in healthy.items():
        other = broken.get(name)
        if other is None or other.shape != each.shape:
            return True
        distance = float((each - other).double().norm())
        moved = float((each - start[name]).double().norm())
        if distance > DIFFERS * max(moved, 0.01 * whole) + 1e-12:
            return True
    return False
