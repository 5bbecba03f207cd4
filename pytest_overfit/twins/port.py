"""The model under test against the one that it was ported from: outputs, gradients, losses, weights mapped."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Unanswerable, users_code
from pytest_overfit.errors.suggest import nearest, shorten
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.gradient_watch import state_of
from pytest_overfit.run.optim import Freezing, GradientClipper
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.run.subject import Subject, is_factory
from pytest_overfit.run.twin_record import PORT, TwinResult
from pytest_overfit.run.update import PlainUpdate
from pytest_overfit.twins.course import UNCHANGED, Course, replay
from pytest_overfit.twins.side import Side, first_apart, outputs_at, stilled

SAME = 2e-6, 5e-5  # of losses and gradients: the same operations in the same order; rounding beyond that is measured
Turn = Callable[[Tensor], Tensor]
Names = dict[str, tuple[str, Turn]]  # a tensor here -> its name there, and how it is turned for it


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def original_of(context: RunContext, subject: Subject) -> tuple[nn.Module, Names]:
    """The model that this one was ported from, with this one's weights, and the names of each tensor there.

    Raises:
        OverfitError: it is no module, or a parameter here has none there, or one of another shape.
    """
    assert subject.twins.port_of is not None
    try:
        given, mapped = subject.twins.port_of
    except (TypeError, ValueError):
        raise OverfitError("no pair", where="port_of", allowed="port_of=(original, map)") from None
    original = given() if is_factory(given) else copy.deepcopy(given)
    if not isinstance(original, nn.Module):
        raise OverfitError(f"a {type(original).__name__}", where="port_of", allowed="a module, or what builds one")
    original = original.to(context.task.device)
    theirs, names = dict(state_of(original)), Names()
    parameters = {name for name, _ in context.task.model.named_parameters()}
    with torch.no_grad():
        for name, tensor in state_of(context.task.model):
            there, turn = _there(name, mapped)
            target = theirs.get(there)
            if target is None and name not in parameters:
                continue
            if target is None:
                guess = nearest(there, theirs)
                raise OverfitError(
                    f"{name} is to be {there!r} of the original, which has no such tensor",
                    where="port_of",
                    allowed=shorten(list(theirs)),
                    hint=f"did you mean {guess!r}?" if guess else None,
                )
            if (turned := turn(tensor.detach())).shape != target.shape:
                found = f"{name} has the shape {tuple(turned.shape)}, {there} of the original {tuple(target.shape)}"
                hint = "map it to (name, function), where the function turns it: (name, lambda w: w.T)"
                raise OverfitError(found, where="port_of", allowed="the same shape", hint=hint)
            target.copy_(turned)
            names[name] = there, turn
    return original, names


def _there(name: str, mapped: Any) -> tuple[str, Turn]:
    """The name of a tensor in the original, and how it is turned."""
    if callable(mapped):
        found = mapped(name)
    else:
        found = (mapped or {}).get(name)
        for pattern in () if found is not None else mapped or ():
            if "*" in pattern and fnmatch.fnmatchcase(name, pattern):
                value = mapped[pattern]
                head, _, tail = pattern.partition("*")
                part, value_name = (
                    name[len(head) : len(name) - len(tail)],
                    value if isinstance(value, str) else value[0],
                )
                found = value_name.replace("*", part, 1)
                found = found if isinstance(value, str) else (found, value[1])
                break
    if found is None:
        return name, _as_it_is
    return (found, _as_it_is) if isinstance(found, str) else (str(found[0]), found[1])


def port(side: Side) -> TwinResult:
    """Trains the original in place of the port, from the port's own weights."""
    context = side.context
    if context.step is not None or context.task.given is not context.task.model:
        raise Unanswerable("the step is its own, or there are several models: a loss(model, batch) is wanted")
    context.start.restore()
    original, names = original_of(context, side.subject)
    other, still = _context_of(context, original, names), side.reference.drawn
    exchange = stilled(UNCHANGED) if still else UNCHANGED
    steps = max(2, side.steps // 2) if still else side.steps
    one = replay(context, steps, exchange) if still else side.reference
    two = replay(other, min(steps, len(one.losses)), exchange)
    how = f"{type(original).__name__} in place of {type(context.task.model).__name__}"
    here = _mapped(one, lambda held: {name: names[name][1](each) for name, each in held.items() if name in names})
    there = _mapped(two, lambda held: {name: held[other] for name, (other, _) in names.items() if other in held})
    how += "; both in evaluation mode" * still
    tolerance = replace(side.tolerance, loss=SAME[0], gradient=SAME[1])
    result = side.compared(PORT, here, there, how, tolerance, still=still)
    if result.outcome == "agreed":
        return result
    with side.questions.asking("where the port differs"):
        modules = {name.rpartition(".")[0]: there.rpartition(".")[0] for name, (there, _) in names.items()}
        ours = outputs_at(context, exchange, 1)
        theirs = outputs_at(other, exchange, 1)
        told = [{here: each[there] for here, there in modules.items() if there in each} for each in theirs]
        return replace(result, outputs=first_apart(ours, (told[0], told[1]), tolerance))
    return result


def _mapped(course: Course, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Course:
    return replace(course, gradients=[change(each) for each in course.gradients], end=change(course.end))


def _context_of(context: RunContext, original: nn.Module, names: Names) -> RunContext:
    """The run of the original: the same loss, batch, clipping, schedules, and optimizers like those of the port."""
    theirs = dict(original.named_parameters())
    known = {id(p): theirs.get(names[name][0]) for name, p in context.task.model.named_parameters() if name in names}
    turns = {id(p): names[name][1] for name, p in context.task.model.named_parameters() if name in names}
    optimizers = [_like(optimizer, known, turns) for optimizer in context.optimizers]
    start = Snapshot()
    for thing in (original, *optimizers):
        start.add(thing)
    clip = GradientClipper(original, ())
    for held, most, kind in context.clip.groups:
        there = [p for each in held if isinstance(p := known.get(id(each)), nn.Parameter)]
        clip.groups.append((there, most, kind))
    task = replace(context.task, model=original, given=original)

    def update(task: Any, watch: Any) -> PlainUpdate:
        return PlainUpdate(task, optimizers, watch, clip=clip, frozen=Freezing())

    return replace(context, task=task, start=start, optimizers=optimizers, clip=clip, update=update)


def _like(optimizer: Optimizer, known: Mapping[int, Tensor | None], turns: Mapping[int, Turn]) -> Optimizer:
    """An optimizer of the same class, settings and state, over the parameters of the original."""
    groups: Sequence[dict[str, Any]] = [
        {**group, "params": [there for p in group["params"] if (there := known.get(id(p))) is not None]}
        for group in optimizer.param_groups
    ]
    with users_code():
        made = type(optimizer)([group for group in groups if group["params"]], lr=groups[0].get("lr"))  # type: ignore[call-arg]
    for p, state in optimizer.state.items():  # of one that has trained before
        if (there := known.get(id(p))) is not None:
            made.state[there] = {
                key: turns[id(p)](value).clone() if isinstance(value, Tensor) and value.shape == p.shape else value
                for key, value in copy.deepcopy(state).items()
            }
    return made
