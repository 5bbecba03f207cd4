"""A device for tests on machines without an accelerator: its tensors hold CPU tensors, and it computes on those.

It is registered with torch in place of a private backend, once per process and for good: tests that need it run in a
process of their own. ``breaks`` are operations that give something else there, as a wrong kernel would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "sim"
breaks: dict[str, Callable[[Tensor], Tensor]] = {}


class Simulated(Tensor):
    """A tensor of the device; ``held`` is the CPU tensor behind it."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Simulated:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Simulated)]
    name = func.name()
    if name.startswith("aten::copy_"):
        _held(args[0]).copy_(_held(args[1]))
        return args[0]
    on_device, kwargs = bool(given), dict(kwargs)
    if (device := kwargs.get("device")) is not None:
        on_device, kwargs["device"] = torch.device(device).type == NAME, torch.device("cpu")
    result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if given and (broken := breaks.get(name)) is not None:
        result = broken(result)
    known = {id(tensor.held): tensor for tensor in given}  # an operation in place returns what it was given

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or not on_device:
            return value
        return known[id(value)] if id(value) in known else Simulated(value)

    return tree_map(wrapped, result)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Simulated) else value


def register() -> None:
    """Makes the device known to torch."""
    _setup_privateuseone_for_python_backend(NAME)
    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for operation, name in (
        (torch.ops.aten.empty.memory_format, "empty.memory_format"),
        (torch.ops.aten.empty_strided.default, "empty_strided"),
    ):
        library.impl(name, lambda *args, _op=operation, **kwargs: _computed(_op, args, kwargs), "PrivateUse1")
    register.library = library  # type: ignore[attr-defined]
