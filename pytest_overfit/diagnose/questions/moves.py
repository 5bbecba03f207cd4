"""What moves without a gradient, or stays and should follow: rows, averages, statistics of what is frozen."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pytest_overfit.diagnose.movement import Average, Drifted, Moves, TaughtCopy
from pytest_overfit.diagnose.questions.parameter_updates import TracedUpdate
from pytest_overfit.diagnose.questions.step_loss import loss_of
from pytest_overfit.diagnose.questions.tensors import is_real
from pytest_overfit.diagnose.questions.unread_settings import unread_settings
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.gradient_watch import named_outputs
from pytest_overfit.run.isolation import restored_process, seed_everything
from pytest_overfit.run.reachable import named
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.update import optimizers_heard
from pytest_overfit.untrusted.objects import contents, is_a, items_of, state

AVERAGE = re.compile(
    r"(^|_)(ema|shadow|average[ds]?|averaging|avg|swa|momentum_(encoder|model|net))(_|$|s$)", re.IGNORECASE
)
FOLLOWING = re.compile(r"(^|_)(target|teacher|ema|shadow|momentum)(_|$)", re.IGNORECASE)  # of a module
AVERAGING = re.compile(r"EMA|Ema(?![a-z])|Averag")  # of a class
READ = 1e-4  # of an output: what exchanged statistics change at least where it reads them
LATER, SECONDS = 300, 10.0  # steps in which an average may yet begin to follow, and the most time for them
LEAST_STEPS = 20  # of a run: an average may begin to follow a little later than its weights


def measure_moves(context: RunContext, traced: TracedUpdate, steps: int) -> Moves:
    """Rows that the loss cannot move, averages that do not follow, statistics that drift; the state is as trained."""
    model = context.task.model
    return Moves(
        rows=traced.tracer.tables.rows(dict(model.named_parameters())),
        averages=tuple(_averages(context)) if steps >= LEAST_STEPS else (),
        drifted=tuple(_drifted(context)),
        taught=tuple(_taught_copies(context, traced.tracer.graph.taught)),
        unread=tuple(unread_settings(traced)),
        idle=tuple(traced.features.idle(traced.names)),
    )


def _taught_copies(context: RunContext, taught: set[int]) -> Iterator[TaughtCopy]:
    """Copies of something that learns, called a target or a teacher, that learn by gradients of their own.

    Args:
        taught: the ids of what an optimizer was handed a gradient for that is not zero.
    """
    model = context.task.model
    learning = [(n, p, context.start.value(p)) for n, p in model.named_parameters() if is_real(p) and id(p) in taught]
    beside = [(name, thing) for name, thing in named(*context.callables) if is_a(thing, nn.Module)]
    for name, module in [*model.named_modules(), *beside]:
        if not FOLLOWING.search(name.rpartition(".")[2]):
            continue
        inside = {id(p) for p in module.parameters()}
        own = [p for p in module.parameters() if p.dim() > 1 and id(p) in taught]
        starts = [start for p in own if (start := context.start.value(p)) is not None and float(start.std()) > 0]
        others = [(n, start) for n, p, start in learning if start is not None and id(p) not in inside]
        of = [next((n for n, start in others if start.equal(s)), "") for s in starts]
        if of and all(of):
            yield TaughtCopy(name, of[0].rpartition(".")[0], len(own))


def _averages(context: RunContext) -> Iterator[Average]:
    """Copies of the weights under the name of an average, of which some are what the weights were at the start."""
    model = context.task.model
    weights = _moved([(p, context.initial(p)) for p in model.parameters() if is_real(p) and p.numel() > 1])
    means = _moved([(mean, context.start.value(mean)) for mean in _means(model)])
    seen: set[int] = set()
    for name, held in _called_averages(context):
        tensors = [t for t in held if is_real(t) and t.numel() > 1 and not t.requires_grad and id(t) not in seen]
        seen |= {id(t) for t in tensors}
        starts = [(t, [s for s in (*weights, *means) if s.shape == t.shape]) for t in tensors]
        stayed = [t for t, own in starts if any(torch.equal(t.detach(), s.to(t)) for s in own)]
        asked = sum(bool(own) for _, own in starts)
        if stayed and not (len(stayed) == asked and _follows_later(context, stayed)):
            yield Average(name, len(stayed), asked)


def _follows_later(context: RunContext, held: Sequence[Tensor]) -> bool:
    """Whether a copy moves as the run goes on: some averages begin once there is something to average.

    The steps are those of the user's, and no optimizer is given a gradient in them.
    """
    if context.step is None:
        return False
    before, until = [t.clone() for t in held], time.perf_counter() + SECONDS
    state = Snapshot()
    state.add(context.task.model)

    def hold(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        optimizer.zero_grad()

    def moved() -> bool:
        return any(not torch.equal(t, old) for t, old in zip(held, before, strict=True))

    try:
        with restored_process(), optimizers_heard(hold), torch.enable_grad(), users_code():
            for _ in range(LATER):
                context.step(context.task.batch)
                if moved() or time.perf_counter() > until:
                    break
        return moved()
    except Refused:  # a step that cannot go on says nothing
        return False
    finally:
        state.restore()
        for tensor, old in zip(held, before, strict=True):
            tensor.detach().copy_(old)


def _moved(pairs: Sequence[tuple[Tensor, Tensor | None]]) -> list[Tensor]:
    """The initial values of those that are others now."""
    known = [(t, s.to(t.device)) for t, s in pairs if s is not None and s.shape == t.shape]
    return [start for t, start in known if not torch.equal(start, t.detach())]


def _means(module: nn.Module) -> list[Tensor]:
    return [buffer for name, buffer in module.named_buffers() if name.endswith("running_mean")]


def _called_averages(context: RunContext) -> Iterator[tuple[str, list[Tensor]]]:
    """What is called an average: parts of the model, and what the user's callables reach, with its tensors."""
    for name, module in context.task.model.named_modules():
        if AVERAGE.search(name.rpartition(".")[2]):
            yield name, list(_tensors_of(module))
    for name, thing in named(*context.callables):
        if AVERAGE.search(name) or AVERAGING.search(type(thing).__name__):
            yield name or type(thing).__name__, list(_tensors_of(thing))


def _tensors_of(thing: Any, depth: int = 2) -> Iterator[Tensor]:
    """The tensors of a module, of a container of them, or of an object that holds such."""
    if is_a(thing, Tensor):
        yield thing
    elif is_a(thing, nn.Module):
        yield from (*thing.parameters(), *_means(thing))
    elif depth:
        held = [value for _, value in items_of(thing)] if is_a(thing, Mapping) else contents(thing)
        for value in held or list(state(thing).values()):
            yield from _tensors_of(value, depth - 1)


def _drifted(context: RunContext) -> Iterator[Drifted]:
    """Running statistics that moved in a module that is frozen as a whole, and that what is trained is evaluated by."""
    for name, module in _frozen_modules(context.task.model):
        moved, buffers = 0.0, []
        for own, norm, start, spread in _statistics(context, module):
            mean = norm.running_mean
            distance = (mean - start.to(mean.device)).abs() / (spread.to(mean.device) + 1e-5).sqrt()
            if distance.numel() and float(distance.max()) > 0:
                moved = max(moved, float(distance.max()))
                buffers.append(".".join(filter(None, (name, own, "running_mean"))))
        frozen = [(p, context.initial(p)) for p in module.parameters() if is_real(p)]
        if buffers and all(s is not None and torch.equal(s.to(p.device), p.detach()) for p, s in frozen):
            with contextlib.suppress(Refused):
                if _is_read(context, module):
                    yield Drifted(name, tuple(buffers), moved)


def _statistics(context: RunContext, module: nn.Module) -> Iterator[tuple[str, Any, Tensor, Tensor]]:
    """Every norm with running statistics: its name, itself, and the mean and variance that it started with."""
    for name, norm in module.named_modules():
        held = (getattr(norm, "running_mean", None), getattr(norm, "running_var", None))
        start, spread = (context.start.value(each) if isinstance(each, Tensor) else None for each in held)
        if start is not None and spread is not None:
            yield name, norm, start, spread


def _is_read(context: RunContext, module: nn.Module) -> bool:
    """Whether, evaluated with the statistics of the start, what is trained or behind it gives something else.

    The outputs of a teacher reach the loss alone: nobody evaluates it, and its batches are all that it normalises by.
    """
    asked, found = loss_of(context), list[float]()
    if asked is None:
        return True

    def hear(part: nn.Module, args: Any, output: Any) -> None:
        heard = [t.detach() for _, t in named_outputs(output) if t.requires_grad and t.numel() > 1]
        found.extend(float(tensor.float().norm()) for tensor in heard)

    def evaluated(statistics: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
        with torch.no_grad():
            for tensor, value in statistics:
                tensor.copy_(value)
        found.clear()
        seed_everything(context.seed)
        context.on(asked).forward()
        return found[:]

    norms = [norm for _, norm, _, _ in _statistics(context, module)]
    starts = [(norm.running_mean, start) for _, norm, start, _ in _statistics(context, module)]
    starts += [(norm.running_var, spread) for _, norm, _, spread in _statistics(context, module)]
    ends = [(tensor, tensor.clone()) for tensor, _ in starts]
    modules = context.task.model.modules()
    learning = [m for m in modules if any(p.requires_grad for p in m.parameters(recurse=False))]
    with restored_process(), contextlib.ExitStack() as hooks:
        for part in (module, *learning):
            hooks.callback(nn.Module.register_forward_hook(part, hear).remove)
        for norm in norms:
            hooks.callback(setattr, norm, "training", norm.training)
            # a step may set the mode of the whole model
            hooks.callback(norm.register_forward_pre_hook(lambda each, args: setattr(each, "training", False)).remove)
        for tensor, value in ends:
            hooks.callback(tensor.copy_, value)
        before, trained = evaluated(starts), evaluated(ends)
    pairs = zip(before, trained, strict=False)
    return len(before) != len(trained) or any(abs(a - b) > READ * abs(b) for a, b in pairs)


def _frozen_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules below the root that have weights, all of them frozen."""
    inside: list[str] = []
    for name, module in root.named_modules():
        if not name or any(name.startswith(f"{home}.") for home in inside):
            continue
        parameters = [p for p in module.parameters() if is_real(p)]
        if any(p.dim() > 1 for p in parameters) and not any(p.requires_grad for p in parameters):
            inside.append(name)
            yield name, module
