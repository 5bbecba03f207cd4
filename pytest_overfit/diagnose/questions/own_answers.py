"""What every module computes by itself: given the inputs it had, its parts answering as they did.

A forward pass is recorded module by module. In a second one, under another mode or another seed, every module gets the
inputs of the first and hands on the outputs of the first: what it returns, or gives to its parts, differs only by what
its own code does otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pytest_overfit.diagnose.questions.model_calls import exchanged_in
from pytest_overfit.diagnose.questions.tensors import is_real, tensors_in
from pytest_overfit.run.elements import is_dense, is_transforming
from pytest_overfit.run.isolation import generators_of_devices
from pytest_overfit.run.numpy_generator import drawn_so_far

MOST_ELEMENTS = 50_000_000  # of all that is recorded
MOST_PLACES = 512  # along an axis whose order is compared
LARGEST_BUFFER = 1_000_000  # elements of one that is compared


@dataclass
class Answer:
    """One call of a module: what it was given, what it returned, and what its own code did beside.

    ``root``: no other module called it. ``gap``: how far what its own code makes lies from what was recorded, relative
    to the size of that; ``handed`` that of what it hands to its parts, None where it has none. ``drew``: it took random
    numbers; ``wrote``: it changed numbers of a buffer of its own, and not
    only a count of calls.
    """

    module: nn.Module
    root: bool
    given: list[Tensor] = field(default_factory=list)
    output: list[Tensor] = field(default_factory=list)
    gap: float = 0.0
    handed: float | None = None
    drew: bool = False
    wrote: bool = False


Answers = dict[tuple[int, int], Answer]  # by the id of the module, and the number of its call
_Open = tuple[Answer, Answer | None, dict[str, Tensor]]  # with the recorded one, and its buffers as they were
Apart = Callable[[list[Tensor], list[Tensor]], float]


class _Recorder:
    def __init__(self, recorded: Answers | None, change: Callable[[Tensor], Tensor], apart: Apart) -> None:
        self.recorded, self.answers, self.change, self.apart = recorded, Answers(), change, apart
        self.counts: dict[int, int] = {}
        self.stack: list[_Open] = []
        self.elements = 0
        self.state = generator_states()

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Before a module runs: it gets what it was given when it was recorded."""
        if is_transforming():
            return None
        self._chance()
        key = id(module), self.counts.get(id(module), 0)
        self.counts[id(module)] = key[1] + 1
        answer = self.answers[key] = Answer(module, root=not self.stack)
        before = None
        if self.recorded is None:
            answer.given = self._kept((args, kwargs))
        else:
            before = self.recorded.get(key)
        instead = None if before is None else _replaced((args, kwargs), before.given, self.change)
        if before is not None and instead is not None and self.stack:
            caller = self.stack[-1][0]
            caller.handed = max(caller.handed or 0.0, self.apart(before.given, _tensors((args, kwargs))))
            caller.gap = max(caller.gap, caller.handed)
        self.stack.append((answer, before, own_buffers(module)))
        return instead

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After it: what was recorded is handed on."""
        if is_transforming():
            return None
        self._chance()
        answer, before, buffers = self.stack.pop()
        answer.wrote = not all(map(torch.equal, buffers.values(), own_buffers(module).values()))
        if self.recorded is None:
            answer.output = self._kept(output)
        elif before is not None:
            answer.gap = max(answer.gap, self.apart(before.output, _tensors(output)))
            return _replaced(output, before.output, self.change)
        return None

    def _chance(self) -> None:
        """Whose code has drawn since the last look."""
        state = generator_states()
        if self.stack and state != self.state:
            self.stack[-1][0].drew = True
        self.state = state

    def _kept(self, nest: Any) -> list[Tensor]:
        found = [t.detach().clone() for t in _tensors(nest)]
        self.elements += sum(t.numel() for t in found)
        return found if self.elements <= MOST_ELEMENTS else []


def as_it_is(tensor: Tensor) -> Tensor:
    """No change."""
    return tensor


def own_answers(
    model: nn.Module,
    forward: Callable[[], Any],
    recorded: Answers | None = None,
    change: Callable[[Tensor], Tensor] = as_it_is,
    apart: Apart | None = None,
) -> Answers:
    """What every module answers in one forward pass, in whatever mode it is; nothing where that is too large to keep.

    Args:
        recorded: the answers of a first pass, which are given and handed on; None: this is the first.
        change: what is done to a tensor before it is given or handed on.
        apart: the gap between what was recorded and what is made now; None: see ``gap_between``.
    """
    recorder = _Recorder(recorded, change, apart or gap_between)
    handles: list[Any] = []
    try:
        for module in model.modules():
            if isinstance(module, torch.jit.ScriptModule):  # it takes no hooks
                continue
            handles.append(module.register_forward_pre_hook(recorder.enter, with_kwargs=True))
            handles.append(module.register_forward_hook(recorder.leave))
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return recorder.answers if recorder.elements <= MOST_ELEMENTS else {}


def at_the_end(before: Answers, after: Answers) -> float:
    """How far what the model hands out has moved, relative to its size."""
    pairs = ((a, after.get(key)) for key, a in before.items() if a.root)
    return max((gap_between(a.output, b.output) for a, b in pairs if b is not None), default=0.0)


def gap_between(old: list[Tensor], new: list[Tensor]) -> float:
    """How far tensors lie apart, 0 where they are not of the same make; what is all zero was not computed."""
    if len(old) != len(new) or any(a.shape != b.shape for a, b in zip(old, new, strict=True)):
        return 0.0
    return max((_apart(a, b.detach()) for a, b in zip(old, new, strict=True) if is_real(a) and a.numel()), default=0.0)


def reordered(old: list[Tensor], new: list[Tensor]) -> float:
    """1 where a tensor has the numbers that it had, in another order along one axis; else 0."""
    return float(
        any(a.shape == b.shape and is_real(a) and _is_reordered(a, b.detach()) for a, b in zip(old, new, strict=False))
    )


def in_one_order(old: list[Tensor], new: list[Tensor]) -> bool:
    """Whether a tensor has the numbers that it had, in another order along an axis that is that of all samples."""
    pairs = ((a, b.detach()) for a, b in zip(old, new, strict=False) if a.shape == b.shape and is_real(a))
    return any(a.dim() > 1 and len(a) > 1 and not a.equal(b) and _has_one_order(a, b) for a, b in pairs)


def _has_one_order(old: Tensor, new: Tensor) -> bool:
    for axis in (axis for axis in range(1, old.dim()) if 1 < old.shape[axis] <= MOST_PLACES):
        a, b = (t.movedim(axis, 0).flatten(1) for t in (old, new))
        same = torch.stack([(a == row).all(1) for row in b])
        if bool((same.sum(0) == 1).all()) and bool((same.sum(1) == 1).all()):
            return True
    return False


def _is_reordered(old: Tensor, new: Tensor) -> bool:
    size = float(old.abs().max()) if old.numel() else 0.0
    if gap_between([old], [new]) <= 1e-3:
        return False
    return any(
        torch.allclose(old.sort(axis).values, new.sort(axis).values, rtol=1e-4, atol=1e-5 * size)
        for axis in range(old.dim())
        if old.shape[axis] > 2
    )


def _apart(old: Tensor, new: Tensor) -> float:
    size = float(old.double().square().mean().sqrt())
    gap = float((old.double() - new.double()).square().mean().sqrt())
    return gap / size if size > 0 and gap - gap == 0 and bool((new != 0).any()) else 0.0


def _replaced(nest: Any, kept: list[Tensor], change: Callable[[Tensor], Tensor]) -> Any:
    """A nest with its tensors as they were kept; None, which leaves it as it is, where it is of another make."""
    found = _reached(nest)
    if len(found) != len(kept) or any(
        a.shape != b.shape or a.dtype != b.dtype for a, b in zip(found, kept, strict=True)
    ):
        return None
    left = iter(kept)
    return exchanged_in(lambda t: change(next(left).clone()) if is_dense(t) else t, nest)


def _tensors(nest: Any) -> list[Tensor]:
    """Those that can be exchanged; else all that are found in objects."""
    return _reached(nest) or list(tensors_in(nest))


def _reached(nest: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def reach(tensor: Tensor) -> Tensor:
        if is_dense(tensor):
            found.append(tensor)
        return tensor

    exchanged_in(reach, nest)
    return found


def own_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the real buffers that a module holds itself."""
    own = ((name, b) for name, b in module._buffers.items() if b is not None)
    return {name: b.detach().clone() for name, b in own if is_real(b) and b.numel() <= LARGEST_BUFFER}


def generator_states() -> list[Any]:
    """The states of all random generators that a model may draw from."""
    states = tree_leaves([torch.get_rng_state(), *(read() for read, _ in generators_of_devices())])
    legacy = drawn_so_far()
    numbers = repr(np.random.get_state(legacy=False)) if legacy is None else legacy  # noqa: NPY002 - models draw from it
    return [numbers, random.getstate()[1], *(state.numpy().tobytes() for state in states)]
