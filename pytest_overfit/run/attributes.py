"""What modules keep beside their tensors: modes, hooks, numbers, and containers of their own."""

from __future__ import annotations

import contextlib
import operator
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from pytest_overfit.untrusted.objects import attributes, contents, is_a

CONTAINERS = (dict, OrderedDict, list, set, deque)
LEAVES = frozenset({bool, int, float, str, type(None), torch.Tensor, nn.Parameter, types.FunctionType})
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
            queue.extend(filter(may_hold, attributes(thing).values()))
            if is_a(thing, torch.jit.ScriptModule):  # its modules and tensors are C++'s
                queue.extend(thing.children())
        else:
            queue.extend(contents(thing))


def may_hold(value: Any) -> bool:
    """Whether what a module keeps may have other things inside; most of it is a number, a tensor or an empty table."""
    kind = type(value)
    return bool(value) if kind in CONTAINERS else kind not in LEAVES


def attributes_of(module: nn.Module) -> Callable[[bool], None]:
    """What puts a module's own attributes back; called with True it puts back its mode and its hooks alone."""
    if isinstance(module, torch.jit.ScriptModule):
        training = module.training
        return lambda keep_trained: setattr(module, "training", training)
    kind, held, before = type(module), attributes(module), dict(attributes(module))
    tables = {
        name: (value, value.copy() if value else ())  # most hold no hook at all
        for name, value in before.items()
        if type(value) in CONTAINERS
    }

    def restore(keep_trained: bool) -> None:
        wanted = before
        if keep_trained:
            wanted = {name: value for name, value in before.items() if name == "training" or name.endswith(HOOKS)}
        elif type(module) is not kind:
            module.__class__ = kind
        if len(held) != len(wanted) or any(map(operator.is_not, held.values(), wanted.values())):
            for name in () if keep_trained else held.keys() - before.keys():
                del held[name]
            held.update(wanted)
        for container, content in (tables[name] for name in wanted if name in tables):
            if not _is_same(container, content):
                _refill(container, content)

    return restore


def _is_same(container: Any, content: Any) -> bool:
    """Whether a container holds the very objects that it held; none of them is asked whether it equals another."""
    if len(container) != len(content):
        return False
    if not content:
        return True
    if any(map(operator.is_not, container, content)):
        return False
    return not isinstance(container, dict) or not any(map(operator.is_not, container.values(), content.values()))


def _refill(container: Any, content: Any) -> None:
    if type(container) is list:
        container[:] = content
        return
    container.clear()
    if type(container) is deque:
        container.extend(content)
    else:
        container.update(content)
