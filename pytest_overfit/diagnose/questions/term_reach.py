"""Depends, term by term: which modules a term of the loss has a gradient for, and which it reads without one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pytest_overfit.diagnose.questions.held_outputs import Held, freed
from pytest_overfit.diagnose.questions.step_calls import users_line
from pytest_overfit.diagnose.questions.step_loss import loss_of
from pytest_overfit.diagnose.questions.tensors import graph_nodes
from pytest_overfit.diagnose.reached_modules import Influence, Reach, Unfelt
from pytest_overfit.diagnose.step_trace import Cut
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.task import Heard, Terms
from pytest_overfit.run.update import into_training

MOST_TERMS, MOST_MODULES, MOST_LINES = 12, 8, 4
ASIDE = 0.01  # of a parameter's size
SEEN = 1e-4  # relative: a term that moves less is rounded


def reach_of(context: RunContext) -> Influence | None:
    """The table of a run with one optimizer and a loss of its own; several take their modules in turn."""
    task = loss_of(context)
    if task is None or context.step is not None or len(context.optimizers) > 1:
        return None
    into_training(context.task.model)
    return measure_reach(context.on(task).seeded, context.task.model)


def measure_reach(forward: Callable[[], tuple[Heard, Terms]], model: nn.Module) -> Influence | None:
    """The table of the terms beside the objective and the modules that learn; None where there are not two of both.

    Args:
        forward: the terms with their graphs, the same numbers in every call.
    """
    parts = _modules(model)
    terms = _reported(forward())
    if len(parts) < 2 or not 2 <= len(terms) <= MOST_TERMS:
        return None
    every = [p for held in parts.values() for p in held]
    found = []
    for term, value in terms.items():
        with users_code():
            gradients = torch.autograd.grad(value, every, retain_graph=True, allow_unused=True)
        by_id = {id(p): g for p, g in zip(every, gradients, strict=True) if g is not None}
        for module, held in parts.items():
            own = [float(by_id[id(p)].double().square().sum()) for p in held if id(p) in by_id]
            found.append(Reach(term, module, sum(own) ** 0.5 if own else None))
    values = {term: float(value.detach()) for term, value in terms.items()}
    del terms
    for module, held in parts.items():
        without = [each for each in found if each.module == module and each.gradient is None]
        if 0 < len(without) < len(values):
            moved = _moved(forward, held, values)
            cuts = {term: _cut(forward, held, term) for term in moved if any(each.term == term for each in without)}
            found = [
                replace(each, moved=moved.get(each.term, 0.0), cut=cuts.get(each.term, "")) if each in without else each
                for each in found
            ]
    return Influence(tuple(found))


def _reported(heard_and_terms: tuple[Heard, Terms]) -> dict[str, Tensor]:
    terms = heard_and_terms[1]
    return {name: term for name, term in terms.items() if name != "objective" and term.requires_grad}


def _modules(model: nn.Module) -> dict[str, list[Tensor]]:
    """The children that learn, of the first module within that has several; none where there are too many."""
    name = ""
    while True:
        children = {
            f"{name}.{child}".lstrip("."): module
            for child, module in model.named_children()
            if any(p.requires_grad for p in module.parameters())
        }
        if len(children) != 1:
            break
        ((name, model),) = children.items()
    held: dict[str, list[Tensor]] = {
        child: [p for p in module.parameters() if p.requires_grad] for child, module in children.items()
    }
    return held if len(held) <= MOST_MODULES else {}


def _moved(
    forward: Callable[[], tuple[Heard, Terms]], held: Sequence[Tensor], values: Mapping[str, float]
) -> dict[str, float]:
    """How far each term moves with the weights, relative to its size; nothing of one that moves by itself."""
    source = torch.Generator().manual_seed(0)
    kept = [p.detach().clone() for p in held]
    found = []
    with torch.no_grad():
        for width in (0.0, ASIDE):
            for p, old in zip(held, kept, strict=True):
                size = old.square().mean().sqrt()
                p.copy_(old + width * size * torch.randn(p.shape, generator=source).to(old))
            found.append({name: float(term) for name, term in forward()[1].items()})
        for p, old in zip(held, kept, strict=True):
            p.copy_(old)
    still, aside = found
    return {
        term: share
        for term, value in values.items()
        if (share := abs(aside[term] - value) / max(abs(value), 1e-12)) > SEEN
        and abs(still[term] - value) < 0.01 * abs(aside[term] - value)
    }


def _cut(forward: Callable[[], tuple[Heard, Terms]], held: Sequence[Tensor], term: str) -> str:
    """The line that detaches what these parameters have made, and without which the term's gradient gets to them."""
    return next((line for line, freed in _lines(forward, held, term) if freed), "")


def _lines(
    forward: Callable[[], tuple[Heard, Terms]], held: Sequence[Tensor], term: str
) -> Iterator[tuple[str, list[Tensor]]]:
    """The lines that detach what some tensors have made, and which of them a term's gradient gets to without each."""
    seen = _Detaching(held)
    with seen:
        forward()
    for line in [line for line in seen.lines if line][:MOST_LINES]:
        found: Sequence[Tensor | None] = ()
        with contextlib.suppress(Refused), _Detaching(held, undone=line), users_code():  # numpy wants it detached
            value = forward()[1].get(term)
            known = [value] if value is not None and value.requires_grad else []
            found = torch.autograd.grad(known, list(held), allow_unused=True) if known else ()
        yield line, [t for t, gradient in zip(held, found, strict=False) if gradient is not None]


def cuts_undone(context: RunContext, cuts: Sequence[Cut]) -> tuple[Cut, ...]:
    """Those cuts, the one first without which the most parameters get a gradient; as they are where none is undone.

    What is detached between rounds of a refinement, or for a number to log, has parameters behind it as well as what
    cuts them off.
    """
    detached = [cut for cut in cuts if cut.by == ".detach()"]
    task = loss_of(context)
    if len(detached) < 2 or task is None or context.step is not None:
        return tuple(cuts)
    named = dict(context.task.model.named_parameters())
    behind = {name: named[name] for cut in detached for name in cut.behind if name in named}
    into_training(context.task.model)
    ids = {id(p): name for name, p in behind.items()}
    lines = _lines(context.on(task).seeded, [*behind.values()], "objective")
    reached = {line: tuple(ids[id(p)] for p in found) for line, found in lines if found}
    best = max(reached, key=lambda line: len(reached[line]), default="")
    chosen = [replace(cut, behind=reached[best]) for cut in detached if best and cut.where.endswith(f", {best}")][:1]
    return *chosen, *(cut for cut in cuts if not chosen or (cut.by, cut.where) != (chosen[0].by, chosen[0].where))


def measure_unfelt(
    forward: Callable[[Any], tuple[Heard, Terms]], batch: Any, named: list[tuple[str, nn.Module]]
) -> tuple[Unfelt, ...]:
    """The outputs along which the objective has no gradient at all, and the terms that move with their values.

    Args:
        named: the modules whose outputs the loss takes; it is asked with these held as they are.
    """
    with freed(named) as free:
        held = Held(forward, free, batch)
        outputs, terms = held(batch)
        objective, names = terms["objective"], {id(leaf): name for name, leaf in outputs}
        if not objective.requires_grad or not free.leaves:
            return ()
        with users_code():
            slopes = torch.autograd.grad(objective, list(free.leaves.values()), allow_unused=True)
        still = [leaf for leaf, slope in zip(free.leaves.values(), slopes, strict=True) if slope is None]
        values = {name: float(term.detach()) for name, term in terms.items()}
        found = []
        for leaf in still[:MOST_MODULES]:
            kept = leaf.detach().clone()
            with torch.no_grad():
                leaf.copy_(kept * 0.9 + 0.1)
            now = {name: float(term.detach()) for name, term in held(batch)[1].items()}
            with torch.no_grad():
                leaf.copy_(kept)
            moved = {n: abs(now[n] - v) / max(abs(v), 1e-12) for n, v in values.items() if n in now}
            if moves := tuple(name for name, share in moved.items() if share > SEEN):
                cut = _cut(lambda: held(batch), [leaf], "objective") if "objective" in moves else ""
                found.append(Unfelt(names[id(leaf)], moves, moved["objective"], cut))
    return tuple(found)


class _Detaching(TorchFunctionMode):
    """Notes the lines that detach what some parameters have made; that of ``undone`` does not."""

    def __init__(self, held: Sequence[Tensor], undone: str = "") -> None:
        super().__init__()
        self.ids, self.undone, self.lines = {id(p) for p in held}, undone, dict[str, None]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        source = args[0] if args else None
        if getattr(func, "__name__", "") == "detach" and isinstance(source, Tensor) and source.requires_grad:
            line = users_line(sys._getframe(1))
            if line and line == self.undone:
                return source
            if self.ids & {id(getattr(node, "variable", None)) for node in graph_nodes(source)}:
                self.lines.setdefault(line)
        return func(*args, **(kwargs or {}))
