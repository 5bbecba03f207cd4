"""A device for tests on machines without an accelerator: its tensors hold CPU tensors, and it computes on those.

It is registered with torch in place of a private backend, once per process and for good: tests that need it run in a
process of their own. It shows where tensors live, how much is computed and when the host waits for it; nothing of
speed, streams, kernels of low precision or graphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "sim"


@dataclass
class Count:
    """What happened on the device: operations, waits of the host for a number of it, and copies either way."""

    operations: int = 0
    waits: int = 0
    copies: int = 0


class Device:
    """What torch asks a backend for, and what tests tell it.

    Args:
        breaks: operations that give something else here, as a wrong kernel would.
        memory: the most bytes that one tensor may have.
    """

    def __init__(self) -> None:
        self.breaks: dict[str, Callable[[Tensor], Tensor]] = {}
        self.memory: int | None = None
        self.counts: list[Count] = []
        self.under_way: list[tuple[Tensor, Tensor]] = []  # copies to the host that do not wait: where to, and what

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        """Random numbers are those of the CPU."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    @contextlib.contextmanager
    def counted(self) -> Iterator[Count]:
        """Counts what happens within the block."""
        self.counts.append(Count())
        try:
            yield self.counts[-1]
        finally:
            self.counts.pop()

    def tell(self, *, operations: int = 0, waits: int = 0, copies: int = 0) -> None:
        for count in self.counts:
            count.operations += operations
            count.waits += waits
            count.copies += copies

    class Event:
        """A place in what the device has been asked for; waiting for it brings the copies before it."""

        def record(self) -> None:
            self.before = len(device.under_way)

        def synchronize(self) -> None:
            device.tell(waits=1)
            for target, value in device.under_way[: self.before]:
                target.copy_(value)


device = Device()


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
        device.tell(waits=1)
        return self.held.tolist()


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Simulated)]
    name = func.name()
    device.tell(operations=1, waits=int(name.startswith("aten::_local_scalar_dense")))
    if name.startswith("aten::copy_"):
        return _written(*args)
    on_device, kwargs = bool(given), dict(kwargs)
    if (asked := kwargs.get("device")) is not None:
        on_device, kwargs["device"] = torch.device(asked).type == NAME, torch.device("cpu")
        if name.startswith("aten::_to_copy"):
            device.tell(copies=int(on_device != bool(given)))
    result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if given and (broken := device.breaks.get(name)) is not None:
        result = broken(result)
    known = {id(tensor.held): tensor for tensor in given}  # an operation in place returns what it was given

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or not on_device:
            return value
        if device.memory is not None and (size := value.numel() * value.element_size()) > device.memory:
            raise torch.OutOfMemoryError(f"{NAME} out of memory. Tried to allocate {size} bytes.")
        return known[id(value)] if id(value) in known else Simulated(value)

    return tree_map(wrapped, result)


def _written(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    device.tell(copies=int(isinstance(target, Simulated) != isinstance(source, Simulated)))
    if non_blocking and isinstance(source, Simulated) and not isinstance(target, Simulated):
        device.under_way.append((target, source.held.clone()))
        target.fill_(torch.nan)  # whoever does not wait reads something else
    else:
        _held(target).copy_(_held(source))
    return target


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Simulated) else value


def register() -> None:
    """Makes the device known to torch."""
    _setup_privateuseone_for_python_backend(NAME, device)
    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for operation, name in (
        (torch.ops.aten.empty.memory_format, "empty.memory_format"),
        (torch.ops.aten.empty_strided.default, "empty_strided"),
    ):
        library.impl(name, lambda *args, _op=operation, **kwargs: _computed(_op, args, kwargs), "PrivateUse1")
    library.impl("_copy_from", lambda source, target, _=False: _written(target, source), "PrivateUse1")
    others: Any = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")  # type: ignore[no-untyped-call]
    others.fallback(torch.library.fallthrough_kernel)
    library.impl("linear", _linear, "AutocastPrivateUse1")
    register.libraries = library, others  # type: ignore[attr-defined]


def _linear(*given: Tensor | None) -> Any:
    """What mixed precision makes of the one operation that it knows here."""
    dtype = torch.get_autocast_dtype(NAME)
    with torch.autocast(NAME, enabled=False):
        return torch.ops.aten.linear(*(None if tensor is None else tensor.to(dtype) for tensor in given))
