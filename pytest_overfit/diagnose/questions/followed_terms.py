"""Which summands of what a step differentiates move a parameter that is stepped with their gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from torch import Tensor, nn

from pytest_overfit.diagnose.evidence import Unfollowed
from pytest_overfit.diagnose.questions.step_calls import calls_told
from pytest_overfit.diagnose.questions.tensors import graph_nodes, lives, tensors_in
from pytest_overfit.diagnose.step_trace import CallKind
from pytest_overfit.errors.asking import users_code
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.task import scalar_terms
from pytest_overfit.run.update import optimizers_heard

STEPS = 2  # what one leaves behind the next one may throw away
SUMS = ("AddBackward", "SubBackward", "NegBackward", "MulBackward", "DivBackward")


@dataclass
class _Backward:
    """One backward pass: the leaves of each of its summands, those whose gradient was applied, and those it lost."""

    summands: list[tuple[Any, set[int]]]
    pending: set[int]
    applied: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)


def unfollowed_terms(context: RunContext) -> tuple[Unfollowed, ...]:
    """The summands whose whole gradient is thrown away, though an optimizer steps with that of others beside them.

    Asked of a step of the user's, from the start; two steps of it are made.
    """
    step = context.step
    if step is None:
        return ()
    names = {id(p): name for name, p in context.task.model.named_parameters()}
    parameters = dict(zip(names, context.task.model.parameters(), strict=True))
    seen: list[_Backward] = []

    def told(kind: CallKind, frame: FrameType) -> None:
        if kind == "backward":
            _drop(seen, parameters)
            given = frame.f_locals.get("tensors")
            for root in tensors_in([given] if isinstance(given, Tensor) else given):
                summands = [(node, leaves & names.keys()) for node, leaves in _summands(root)]
                seen.append(_Backward(summands, set().union(*(leaves for _, leaves in summands))))

    def stepping(optimizer: Any, args: Any, kwargs: Any) -> None:
        _drop(seen, parameters)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for each in seen:
            each.applied |= each.pending & held

    reported: dict[str, set[Any]] = {}
    with context.at_start(), optimizers_heard(stepping):
        for _ in range(STEPS):
            with calls_told(told), users_code():
                terms = scalar_terms(step(context.task.batch))
            for name, term in terms.items():
                if name != "objective" and term.grad_fn is not None:
                    reported.setdefault(name, set()).add(term.grad_fn)
        _drop(seen, parameters)
    return tuple(_found(seen, names, reported))


def _drop(seen: list[_Backward], parameters: dict[int, nn.Parameter]) -> None:
    """Takes note of gradients that have been zeroed since."""
    for each in seen:
        gone = {i for i in each.pending if not lives(parameters[i].grad)}
        each.pending -= gone
        each.lost |= gone - each.applied


def _found(seen: list[_Backward], names: dict[int, str], reported: dict[str, set[Any]]) -> Iterator[Unfollowed]:
    told: set[str] = set()
    for each in seen:
        for node, leaves in each.summands:
            if not each.applied or not leaves or not leaves <= each.lost:
                continue
            term = next((name for name, nodes in reported.items() if node in nodes), node.name())
            if term not in told:
                told.add(term)
                reaches, stepped = (tuple(names[i] for i in names if i in ids) for ids in (leaves, each.applied))
                yield Unfollowed(term, reaches, stepped)


def _summands(root: Tensor) -> Iterator[tuple[Any, set[int]]]:
    """The nodes that a scalar is a weighted sum of, each with the ids of its leaves."""
    waiting = [root.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        following = [after for after, _ in node.next_functions if after is not None]
        weighted = node.name().startswith(SUMS[3:]) and len(following) > 1  # a product is one summand
        if node.name().startswith(SUMS) and not weighted and all(map(_is_scalar, following)):
            waiting += following
        else:
            yield node, {id(each.variable) for each in graph_nodes(node) if hasattr(each, "variable")}


def _is_scalar(node: Any) -> bool:
    shapes = [metadata.shape for metadata in getattr(node, "_input_metadata", ())]
    return bool(shapes) and all(math.prod(shape) == 1 for shape in shapes)
