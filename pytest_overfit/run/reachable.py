"""What callables and iterables hold: stateful objects, and the numbers that user code counts with."""

from __future__ import annotations

import contextlib
import functools
import random
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Sampler

from pytest_overfit.untrusted.objects import attributes, contents, defines, is_a, state

MOST_OBJECTS = 2000  # of one search, against endless graphs of a trainer's own objects
DEEPEST = 5
PLAIN = (int, float, complex, str, bytes, type(None))  # bool is an int
HOLD_NOTHING = (*PLAIN, type, types.ModuleType)
KINDS = (nn.Module, Optimizer, torch.Generator, np.random.Generator, random.Random)
LIBRARIES = (
    "torch",
    "numpy",
    "builtins",
    "pytest",
    "_pytest",
    "pluggy",
    "pytest_overfit",
    "omegaconf",
)  # hold nothing of the user's


def reachable(*roots: Any) -> Iterator[Any]:
    """Stateful objects that callables and iterables hold: closures, bound methods, partials, attributes, globals named.

    Modules, optimizers, whatever has ``state_dict`` and ``load_state_dict`` (schedulers, scalers, averaged models),
    and random generators. What lies inside a module is the module's.
    """
    return (thing for _, thing in named(*roots) if _is_stateful(thing))


def counters(*roots: Any) -> Iterator[tuple[Callable[[Any], Any], Any]]:
    """(write, value) of every number, flag, text and tensor that stands by a name: in closures, globals, attributes."""
    for _, thing in named(*roots):
        if is_a(thing, types.FunctionType):
            for cell in thing.__closure__ or ():
                with contextlib.suppress(ValueError):  # a name that is not bound yet
                    if is_a(cell.cell_contents, *PLAIN, Tensor):
                        yield functools.partial(setattr, cell, "cell_contents"), cell.cell_contents
            names = [name for name in thing.__code__.co_names if is_a(thing.__globals__.get(name, ()), *PLAIN, Tensor)]
            yield from ((functools.partial(_put, thing.__globals__, name), thing.__globals__[name]) for name in names)
        elif not _is_stateful(thing):
            held: dict[Any, Any] = thing if type(thing) is dict else attributes(thing)
            for name, value in held.items():
                if is_a(value, *PLAIN, Tensor):
                    yield functools.partial(_put, held, name), value


def _put(mapping: dict[Any, Any], name: Any, value: Any) -> None:
    mapping[name] = value


def named(*roots: Any) -> Iterator[tuple[str, Any]]:
    """Everything of the user's that roots hold, with its name there; nearest first, a stateful object not looked into.

    Example:
        >>> shadow = {}
        >>> ("shadow", shadow) in named(lambda: shadow)
        True
    """
    return ((name, thing) for name, thing in _walked(*roots) if not is_a(thing, Tensor))


def tensors(*roots: Any) -> Iterator[Tensor]:
    """Every tensor that roots hold outside of stateful objects; nearest first, one may come twice."""
    return (thing for _, thing in _walked(*roots) if is_a(thing, Tensor))


def _walked(*roots: Any) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    queue: deque[tuple[str, Any, int]] = deque(("", root, 0) for root in roots)
    while queue and len(seen) < MOST_OBJECTS:
        name, thing, depth = queue.popleft()
        if is_a(thing, Tensor):
            yield name, thing
            continue
        if id(thing) in seen or issubclass(type(thing), HOLD_NOTHING):
            continue
        seen.add(id(thing))
        yield name, thing
        if depth < DEEPEST and not _is_stateful(thing):
            queue.extend((own or name, held, depth + 1) for own, held in _held_by(thing))


def _is_stateful(thing: Any) -> bool:
    return issubclass(type(thing), KINDS) or defines(thing, "state_dict", "load_state_dict")


def _held_by(thing: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, with its name; "" where it has none of its own."""
    if is_a(thing, functools.partial):
        yield from (("", held) for held in (thing.func, *thing.args))
        yield from thing.keywords.items()
    elif is_a(thing, types.MethodType):
        yield from (("", thing.__self__), ("", thing.__func__))
    elif is_a(thing, types.FunctionType):
        if _is_library(thing):
            return
        yield from (("", attributes(thing)[name]) for name in ("__wrapped__",) if name in attributes(thing))
        yield from (("", held) for held in thing.__defaults__ or ())
        yield from (thing.__kwdefaults__ or {}).items()
        for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=False):
            with contextlib.suppress(ValueError):  # a name that is not bound yet
                yield name, cell.cell_contents
        yield from ((name, thing.__globals__[name]) for name in thing.__code__.co_names if name in thing.__globals__)
    else:
        yield from (("", held) for held in contents(thing))
        if is_a(thing, DataLoader, Sampler) or not _is_library(type(thing)):
            yield from state(thing).items()


def _is_library(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] in LIBRARIES
