"""A plain PyTorch loop over the pieces of a case: the truth about a case, and the baseline of what watching costs."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.case import Setup

DEFAULT_LIMIT = 0.01
HOLD_STEPS = 5
STOCHASTIC_STEPS = 25


@dataclass(frozen=True)
class Curve:
    """The objective of every step, and the wall time of all of them."""

    objective: tuple[float, ...]
    seconds: float
    reached: bool

    @property
    def steps(self) -> int:
        return len(self.objective)

    @property
    def ms_per_step(self) -> float:
        return 1000 * self.seconds / max(self.steps, 1)


def train(setup: Setup, *, max_steps: int | None = None, stop_early: bool = True) -> Curve:
    """Trains a setup in place, or what its factory builds, until its limit has held, or for the steps it declares."""
    if callable(setup.model) and not isinstance(setup.model, nn.Module):
        setup = replace(setup, model=setup.model())
    budget = max_steps or int(setup.settings.get("max_steps", 1000))
    step = bare_step(setup)
    objective: list[float] = []
    reached = False
    started = time.perf_counter()
    for _ in range(budget):
        for module in modules_of(setup.model):
            module.train()
        objective.append(step())
        reached = holds(objective, setup.settings)
        if reached and stop_early:
            break
    return Curve(tuple(objective), time.perf_counter() - started, reached)


def bare_step(setup: Setup) -> Callable[[], float]:
    """One optimizer step of a setup as a function that returns the objective before the update."""
    optimizer = build_optimizer(setup)
    if setup.step is not None:
        extra = (optimizer,) if len(inspect.signature(setup.step).parameters) == 3 else ()
        return lambda: number(objective_of(setup.step(setup.model, setup.data, *extra)))
    compute = loss_function(setup)
    optimizers = list(optimizer.values()) if isinstance(optimizer, Mapping) else [optimizer]
    if isinstance(optimizers[0], torch.optim.LBFGS):

        def closure() -> float:
            optimizers[0].zero_grad()
            loss = compute()
            loss.backward()  # type: ignore[no-untyped-call]
            return number(loss)

        return lambda: number(optimizers[0].step(closure))

    def step() -> float:
        for each in optimizers:
            each.zero_grad()
        loss = compute()
        loss.backward()  # type: ignore[no-untyped-call]
        for each in optimizers:
            each.step()
        return number(loss)

    return step


def build_optimizer(setup: Setup) -> Any:
    """The optimizer, or name -> optimizer, that a setup asks for."""
    if isinstance(setup.optimizer, (torch.optim.Optimizer, Mapping)):
        return setup.optimizer
    modules = [*modules_of(setup.model), *([setup.loss] if isinstance(setup.loss, nn.Module) else [])]
    trainable = [p for module in modules for p in module.parameters() if p.requires_grad]
    if setup.optimizer is None:
        return torch.optim.AdamW(trainable, lr=1e-3, weight_decay=0.0)
    return setup.optimizer(trainable)


def loss_function(setup: Setup) -> Callable[[], Tensor]:
    """The objective of a setup as a function of nothing."""
    model, data, loss = setup.model, setup.data, setup.loss
    if loss is None:
        return lambda: objective_of(model(**data) if isinstance(data, Mapping) else model(*data))
    if is_criterion(loss):
        return lambda: objective_of(loss(model(data[0]), data[1]))
    return lambda: objective_of(loss(model, data))


def is_criterion(loss: Any) -> bool:
    """Whether a loss takes (prediction, target), as those of torch.nn do, and not (model, batch)."""
    return isinstance(loss, nn.Module) or getattr(loss, "__module__", "") == "torch.nn.functional"


def number(value: Any) -> float:
    """A tensor or number as a float: a host-device sync."""
    return float(value.item() if isinstance(value, Tensor) else value)


def objective_of(returned: Any) -> Any:
    """The objective in what a loss, a step or a model returned."""
    if isinstance(returned, Mapping):
        return returned["objective"]
    if isinstance(returned, (tuple, list)):
        return returned[0]
    return getattr(returned, "loss", returned)


def holds(objective: Sequence[float], settings: Mapping[str, Any]) -> bool:
    """Whether the limit has held: for 5 steps in a row, or for the mean of 25 where the forward pass is random."""
    stated = settings.get("objective", DEFAULT_LIMIT)
    limit = float(stated["below"]) if isinstance(stated, Mapping) else float(stated)
    if isinstance(stated, Mapping) and stated.get("relative"):
        limit *= objective[0]
    if settings.get("stochastic"):
        last = objective[-STOCHASTIC_STEPS:]
        return len(last) == STOCHASTIC_STEPS and sum(last) / len(last) < limit
    last = objective[-HOLD_STEPS:]
    return len(last) == HOLD_STEPS and all(value < limit for value in last)


def modules_of(model: Any) -> Iterator[nn.Module]:
    """The modules of a model that is one, or name -> module."""
    if isinstance(model, Mapping):
        yield from model.values()
    else:
        yield model
