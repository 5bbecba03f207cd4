"""What modules keep beside their tensors: modes, hooks, numbers, and containers of their own."""

from __future__ import annotations

import contextlib
import operator
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from pytest_overfit.untrusted.objects import attributes, contents, is_a

CONTAINERS = (dict, OrderedDict, list, set, deque)
HOOKS = ("_hooks", "_pre_hooks", "_hooks_with_kwargs", "_hooks_always_called")


@contextlib.contextmanager
def attributes_kept(root: nn.Module) -> Iterator[None]:
    """What modules keep beside their tensors comes back after the block: a step that is cut short resets nothing."""
    restorers = [attributes_of(module) for module in all_modules(root)]
    try:
        yield
    finally:
        for restore in restorers:
            restore(False)


def all_modules(root: nn.Module) -> Iterator[nn.Module]:
    """A module and all below it, those that hide in plain lists and dicts included."""
    seen: set[int] = set()
    queue: list[Any] = [root]
    while queue:
        thing = queue.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if is_a(thing, nn.Module):
            yield thing
            queue.extend(attributes(thing).values())
            if is_a(thing, torch.jit.ScriptModule):  # its modules and tensors are C++'s
                queue.extend(thing.children())
        else:
            queue.extend(contents(thing))


def attributes_of(module: nn.Module) -> Callable[[bool], None]:
    """What puts a module's own attributes back; called with True it puts back its mode and its hooks alone."""
    if isinstance(module, torch.jit.ScriptModule):
        training = module.training
        return lambda keep_trained: setattr(module, "training", training)
    kind, held, before = type(module), attributes(module), dict(attributes(module))
    filled = {name for name, value in before.items() if type(value) in CONTAINERS}
    kept = {name: before[name].copy() for name in filled if before[name]}  # most hold no hook at all

    def restore(keep_trained: bool) -> None:
        names = [n for n in before if n == "training" or n.endswith(HOOKS)] if keep_trained else list(before)
        if not keep_trained:
            module.__class__ = kind
            for name in held.keys() - before.keys():
                del held[name]
        for name in names:
            held[name] = before[name]
            if name in filled and not _is_same(before[name], kept.get(name, ())):
                _refill(before[name], kept.get(name, ()))

    return restore


def _is_same(container: Any, content: Any) -> bool:
    """Whether a container holds the very objects that it held; none of them is asked whether it equals another."""
    if len(container) != len(content):
        return False
    return not any(
        any(map(operator.is_not, now, then))
        for now, then in (
            (container, content),
            *([(container.values(), content.values())] if isinstance(container, dict) and content else ()),
        )
    )


def _refill(container: Any, content: Any) -> None:
    if type(container) is list:
        container[:] = content
        return
    container.clear()
    if type(container) is deque:
        container.extend(content)
    else:
        container.update(content)
