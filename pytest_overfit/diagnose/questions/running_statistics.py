"""Running statistics of the trained weights: what they settle to, whose they are, and whether they settle at all."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pytest_overfit.errors.asking import users_code
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.isolation import restored_process, seed_everything
from pytest_overfit.run.update import into_training, optimizers_heard

STEPS = 4  # of the user's, over which running statistics are averaged
HALF, MOST_STEPS = 0.5, 32  # of a distance: what steps, so many at most, are to take away by their momentum
ARRIVED = 1e-3  # of their size: statistics that have no way to go

Kept = list[tuple[Tensor, Tensor]]  # buffers, and what they were


def buffers_of(context: RunContext) -> Kept:
    """The statistics as they are now."""
    return [(b, b.clone()) for norm in _norms(context) for b in norm.buffers()]


def settle(context: RunContext, task: Any, passes: int) -> None:
    """Makes them those of the trained weights, as the batch has them."""
    with torch.no_grad():
        _average(_norms(context), context.on(task).forward, passes)


def by_steps(
    context: RunContext, passes: int, evaluated: Callable[[], float | None]
) -> tuple[float | None, float | None]:
    """What is evaluated by the statistics that whole steps of the user's make, and by those of what has a graph alone.

    The weights stay as they are: no optimizer is given a gradient.
    """
    norms, found, step = _norms(context), list[float | None](), context.step
    if step is None or not norms:
        return None, None
    kept = buffers_of(context)
    for looks in (nullcontext(), _graphs_alone(norms)):
        with _standing(context), looks:
            _average(norms, partial(step, context.task.batch), max(STEPS, passes))
        found.append(evaluated())
    _put_back(kept)
    return found[0], found[1]


def distance_left(context: RunContext, task: Any, trained: Kept) -> tuple[float, float] | None:
    """How much of the way from the statistics of training to those that there are now is left after some steps.

    And how much their momentum leaves. None where they have come, or where momentum leaves most. The weights stay as
    they are.
    """
    norms, step, settled = [norm for norm in _norms(context) if norm.momentum], context.step, buffers_of(context)
    slowest = max((1 - norm.momentum for norm in norms), default=1.0)
    count = 1 if slowest <= 0 else math.ceil(math.log(HALF) / math.log(slowest)) if slowest < 1 else MOST_STEPS + 1
    if count > MOST_STEPS:
        return None
    means = [(norm.running_mean, norm.running_mean.clone()) for norm in norms]

    def apart() -> float:
        return math.sqrt(sum(float((now - then).square().sum()) for now, then in means))

    _put_back(trained)
    before = apart()
    if not before > ARRIVED * math.sqrt(sum(float(then.square().sum()) for _, then in means)):
        return None
    with _standing(context):
        for _ in range(count):
            context.on(task).forward() if step is None else step(context.task.batch)
    left = apart() / before
    _put_back(settled)
    return left, max(slowest, 0.0) ** count


@contextlib.contextmanager
def _standing(context: RunContext) -> Iterator[None]:
    """Steps in the block leave the weights as they are."""

    def hold(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        optimizer.zero_grad()

    into_training(context.task.model)
    seed_everything(context.seed)
    with restored_process(), optimizers_heard(hold), torch.enable_grad(), users_code():
        yield


def _put_back(kept: Kept) -> None:
    with torch.no_grad():
        for buffer, old in kept:
            buffer.copy_(old)


@contextlib.contextmanager
def _graphs_alone(norms: list[Any]) -> Iterator[None]:
    """Nothing but passes with a graph moves statistics in the block."""
    before: dict[Any, list[Tensor]] = {}

    def enter(norm: Any, args: Any) -> None:
        if not torch.is_grad_enabled():
            before[norm] = [b.clone() for b in norm.buffers()]

    def leave(norm: Any, args: Any, output: Any) -> None:
        for buffer, old in zip(norm.buffers(), before.pop(norm, ()), strict=False):
            buffer.copy_(old)

    handles = [norm.register_forward_pre_hook(enter) for norm in norms]
    handles += [norm.register_forward_hook(leave) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _norms(context: RunContext) -> list[Any]:
    """Those with running statistics; what would not even half follow in a whole run is left as it is."""
    steps, kind = context.plan.max_steps, nn.modules.batchnorm._BatchNorm
    every = [m for m in context.task.model.modules() if isinstance(m, kind) and m.running_mean is not None]
    return [m for m in every if (momentum := getattr(m, "momentum", 0.0)) is None or (1 - momentum) ** steps < 0.5]


def _average(norms: list[Any], look: Callable[[], Any], passes: int) -> None:
    """Running statistics averaged anew over so many looks, and of the biased variance that training normalises with.

    Over few values a channel the unbiased one is another function.
    """
    counts = dict[nn.Module, int]()

    def count(module: nn.Module, args: Any) -> None:
        counts[module] = args[0].numel() // max(1, args[0].shape[1])

    with contextlib.ExitStack() as stack:
        for norm in norms:
            stack.callback(setattr, norm, "momentum", norm.momentum)
            stack.callback(norm.register_forward_pre_hook(count).remove)
            norm.momentum = None
            norm.reset_running_stats()
        for _ in range(passes if norms else 0):
            look()
    with torch.no_grad():
        for module, values in counts.items():
            module.get_buffer("running_var").mul_((values - 1) / values)
