"""Repeats, of the way back: has one forward pass one gradient, whatever is drawn meanwhile and however often it is?

Checkpointing that does not keep its random numbers recomputes another pass than the one whose loss is reported, and a
hook that is registered in every call acts once for every call that there was. Neither shows in the objective.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pytest_overfit.diagnose.agreement import BackwardAgain
from pytest_overfit.diagnose.questions.tensors import tensors_in
from pytest_overfit.errors.asking import users_code
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.elements import is_dense
from pytest_overfit.run.isolation import generators_of_devices, seed_everything

OTHER = 1  # added to the run's seed between the way there and the way back
SAME = 1e-3  # of a gradient's size: what is rounded otherwise, or summed up in another order
OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")
OF_MODULES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Gradients = dict[str, Tensor]
Hooks = dict[str, MutableMapping[int, Any]]


@dataclass(frozen=True)
class _Made:
    """An objective, the gradients of all that has one, and the module within which all run that do on the way back.

    ``draws``: random numbers are drawn on that way, and not put back.
    """

    objective: float
    gradients: Gradients
    draws: bool
    recomputed: str


def measure_backward(on: RunContext, objective: Tensor, before: Mapping[str, set[int]]) -> BackwardAgain | None:
    """The gradients of one forward pass with other random numbers behind it, and with the hooks of one call alone.

    The model is asked again only where its way back draws numbers, or where hooks have come to those of before. None
    where there is nothing to differentiate, or the same seed does not give the same objective.

    Args:
        on: something that can be differentiated again and again.
        objective: what a call under the run's seed has given; its graph is used up.
        before: the keys of the hooks before that call.
    """
    first = _differentiated(on, objective)
    if first is None or (piled := _piled(on, before)) is not None:
        return None if first is None else piled
    if not first.draws:
        return BackwardAgain()
    other, again = _gradients(on, OTHER), _gradients(on)
    if other is None or again is None or not first.objective == other.objective == again.objective:
        return None
    drawn, repeated = _apart(first.gradients, other.gradients), _apart(first.gradients, again.gradients)
    if not drawn > SAME > repeated:
        return BackwardAgain()
    tensors = _unlike(first.gradients, other.gradients)
    return BackwardAgain(drawn=drawn, tensors=tensors, recomputed=first.recomputed)


def _gradients(on: RunContext, other: int = 0) -> _Made | None:
    return _differentiated(on, on.seeded()[1]["objective"], other)


def _differentiated(on: RunContext, objective: Tensor, other: int = 0) -> _Made | None:
    """What an objective has as gradients; None where it has none.

    Args:
        other: how far the seed behind the forward pass is from that before it; 0: nothing is seeded.
    """
    model = on.task.model
    held = [(name, p) for name, p in model.named_parameters() if p.requires_grad and is_dense(p)]
    kept = [(p, p.grad) for p in model.parameters()]
    names = {id(module): name for name, module in model.named_modules()}
    ran: list[list[str]] = []

    def enter(module: nn.Module, args: Any) -> None:
        if id(module) in names:
            ran.append(names[id(module)].split("."))

    if not objective.requires_grad or not math.isfinite(float(objective.detach())):
        return None
    for p, _ in kept:
        p.grad = None
    if other:
        seed_everything(on.seed + other)
    states = _states()
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(register_module_forward_pre_hook(enter).remove)
            with users_code():
                objective.backward()  # type: ignore[no-untyped-call]
        found = {name: p.grad for name, p in held if p.grad is not None and is_dense(p.grad)}
    finally:
        for p, grad in kept:
            p.grad = grad
    draws = any(not torch.equal(one, now) for one, now in zip(states, _states(), strict=True))
    return _Made(float(objective.detach()), found, draws, _around(ran))


def _around(names: list[list[str]]) -> str:
    """The innermost module that all of several are, or are in; empty where that is the whole model, or nothing."""
    pairs = zip(min(names, default=[]), max(names, default=[]), strict=False)
    return ".".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _states() -> list[Tensor]:
    """The states of torch's random generators."""
    return list(tensors_in([torch.get_rng_state(), *(read() for read, _ in generators_of_devices())]))


def _piled(on: RunContext, before: Mapping[str, set[int]]) -> BackwardAgain | None:
    """What hooks that every call adds do to objective and gradient, all of them beside those of one call."""
    grown = {name: held for name, held in hooks_of(on.task.model).items() if len(held) > len(before.get(name, ()))}
    piles = {name: held for name, held in grown.items() if len(before.get(name, ())) > 1}
    if not piles:
        return None
    with _without(piles, before):
        alone = _gradients(on)
    now = _gradients(on)
    if alone is None or now is None:
        return None
    one, all_ = alone.gradients, now.gradients
    apart = max(_apart(one, all_), abs(now.objective - alone.objective) / (abs(alone.objective) or 1.0))
    if not apart > SAME:
        return None
    name, held = max(piles.items(), key=lambda each: len(each[1]))
    unlike = _unlike(one, all_)
    size = _norm(one[each] for each in unlike)
    left = _norm(all_[each] for each in unlike) / size if size else math.nan
    return BackwardAgain(
        hooked=name, hooks=len(held), left=left, tensors=unlike, objective=(alone.objective, now.objective)
    )


def hooks_of(model: nn.Module) -> Hooks:
    """What hangs on the parameters and modules of a model, by their names."""
    found: Hooks = {}
    holders: Iterator[tuple[str, Any, Sequence[str]]] = (
        (name, each, kinds)
        for named, kinds in ((model.named_parameters(), OF_TENSORS), (model.named_modules(), OF_MODULES))
        for name, each in named
    )
    for name, holder, kinds in holders:
        for kind in kinds:
            if isinstance(held := getattr(holder, kind, None), MutableMapping):
                found[f"{name}.{kind}"] = held
    return found


@contextlib.contextmanager
def _without(piles: Hooks, before: Mapping[str, set[int]]) -> Iterator[None]:
    """The block runs without the hooks that are of the same code as those that a call has just added."""
    kept = {name: dict(held) for name, held in piles.items()}
    for name, held in piles.items():
        added = {_kind(hook) for key, hook in held.items() if key not in before.get(name, ())}
        for key in [key for key, hook in held.items() if _kind(hook) in added]:
            del held[key]
    try:
        yield
    finally:
        for name, held in piles.items():
            held.clear()
            held.update(kept[name])


def _kind(hook: Any) -> Any:
    return getattr(hook, "__code__", type(hook))


def _norm(tensors: Any) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _apart(one: Gradients, other: Gradients) -> float:
    """How far two gradients lie apart, relative to the first of them."""
    if one.keys() != other.keys():
        return math.inf
    gap, size = _norm(one[name] - other[name] for name in one), _norm(one.values())
    return gap / size if size else (math.inf if gap else 0.0)


def _unlike(one: Gradients, other: Gradients) -> tuple[str, ...]:
    """The tensors whose gradients lie apart."""
    return tuple(name for name in one if name not in other or _apart({name: one[name]}, {name: other[name]}) > SAME)
