"""Summands of the objective that are cut from the model: its value has them, and its gradient has not.

Each cut is made to give a little more. Where the objective goes along in proportion and its gradient stays as it is,
to the last digit, what is cut is added to it, and nothing learns from that. A weight, a normalisation or a target that
is detached on purpose changes the gradient, a number for a log changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pytest_overfit.diagnose.operation import LOSS, CutTerm, Op
from pytest_overfit.diagnose.questions.step_calls import users_line
from pytest_overfit.diagnose.questions.step_graph import CUTTING
from pytest_overfit.diagnose.questions.tensors import graph_nodes, is_real
from pytest_overfit.errors.asking import Refused, Unanswerable, users_code
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.update import into_training

WHAT = ("item", "__float__", "detach", "data")  # of a tensor a number, or one of its values
MOST = 8  # cuts: each costs two passes forward and back
MORE = 0.01  # of what is cut
SAME = 1e-6  # relative: a gradient that is the same
STRAIGHT = 0.02  # of the change: in proportion
SEEN = 1e-4  # of the objective: what is rounded

Place = tuple[str, str, int]  # what cuts, the user's line, and the instruction there


@dataclass(frozen=True)
class _Asked:
    """The objective as a number, and its gradients, None where it has none for a parameter."""

    value: float
    gradients: tuple[Tensor | None, ...]

    def follows(self, other: _Asked) -> bool:
        """Whether the gradients are those of the other."""
        for mine, its in zip(self.gradients, other.gradients, strict=True):
            if (mine is None) != (its is None):
                return False
            if mine is not None and its is not None:
                apart = float((mine - its).double().norm())
                if apart > SAME * float(its.double().norm()):
                    return False
        return True


class _Cuts(TorchFunctionMode):
    """Notes where numbers are taken from what some parameters have made; at ``place`` they are ``times`` as large."""

    def __init__(self, held: Sequence[Tensor], place: Place | None = None, times: float = 1.0) -> None:
        super().__init__()
        self.ids, self.place, self.times, self.places = {id(p) for p in held}, place, times, dict[Place, None]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        source = args[0] if args else None
        out = func(*args, **(kwargs or {}))
        if name not in WHAT or not isinstance(source, Tensor) or not is_real(source) or source.grad_fn is None:
            return out
        frame = sys._getframe(1)
        place = (name, users_line(frame), frame.f_lasti)
        if place == self.place:
            return out * self.times
        if self.place is None and place[1] and self._of_the_model(source):
            self.places.setdefault(place)
        return out

    def _of_the_model(self, source: Tensor) -> bool:
        return bool(self.ids & {id(getattr(node, "variable", None)) for node in graph_nodes(source)})


def cut_terms(on: RunContext, *, straight: bool) -> Iterator[Op]:
    """The cuts whose numbers are summands of the objective of the trained model, with what they come to in it.

    Args:
        straight: a value was passed straight through, which is such a cut, and meant.
    """
    if straight:
        raise Unanswerable("a value is passed straight through")
    into_training(on.task.model)
    held = [p for p in on.task.model.parameters() if p.requires_grad]
    seen = _Cuts(held)
    first = _ask(on, held, seen)
    for place in list(seen.places)[:MOST] if first is not None else ():
        once, twice = (_ask(on, held, _Cuts(held, place, 1 + by)) for by in (MORE, 2 * MORE))
        if first is None or once is None or twice is None or not (once.follows(first) and twice.follows(first)):
            continue
        step, both = once.value - first.value, twice.value - first.value
        if abs(step) > SEEN * MORE * abs(first.value) and abs(both - 2 * step) < STRAIGHT * abs(both):
            yield Op(CUTTING[place[0]], LOSS, place[1], fact=CutTerm(step / MORE, first.value))


def _ask(on: RunContext, held: Sequence[Tensor], mode: _Cuts) -> _Asked | None:
    """None where the objective takes no such number."""
    try:
        with mode:
            objective = on.seeded()[1]["objective"]
        if not objective.requires_grad:
            return _Asked(float(objective), (None,) * len(held))
        with users_code():
            gradients = torch.autograd.grad(objective, list(held), allow_unused=True)
        return _Asked(float(objective.detach()), gradients)
    except Refused:
        return None
