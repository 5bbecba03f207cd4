"""Copies on the host of what lies on an accelerator: pinned where it has such memory, and all under way at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pytest_overfit.run.device import as_current, backend_of
from pytest_overfit.run.elements import is_strided
from pytest_overfit.run.memory import free_bytes

PINNED_SHARE = 4  # of the free memory of the host at most one part in so many is pinned: it cannot be swapped out
ON_HOST = ("cpu", "meta")


class HostCopies:
    """Copies that may still be under way: ``wait`` before any of them is read.

    The device works in order: a copy that is under way has the numbers that the tensor had when it was asked for,
    whatever is written into the tensor after that.

    Example:
        >>> copies = HostCopies()
        >>> value = copies.of(torch.ones(2))
        >>> copies.sent(), copies.wait()
        (None, None)
        >>> value
        tensor([1., 1.])
    """

    def __init__(self) -> None:
        self._asked: set[torch.device] = set()  # copies from there have no event behind them yet
        self._events: list[Any] = []
        self._room: int | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """A copy of a plain tensor without a graph; of one on the host it is there at once."""
        if tensor.device.type in ON_HOST:
            return tensor.clone()
        if not hasattr(backend_of(tensor.device), "Event") or (value := self._pinned(tensor)) is None:
            return tensor.to("cpu", copy=True)
        with as_current(tensor.device):
            value.copy_(tensor, non_blocking=True)
        self._asked.add(tensor.device)
        return value

    def sent(self) -> None:
        """Those that belong together have been asked for: what ``wait`` waits for is these, and nothing after them."""
        while self._asked:
            device = self._asked.pop()
            with as_current(device):
                self._events.append(backend_of(device).Event())
                self._events[-1].record()

    def wait(self) -> None:
        """All of them are there."""
        self.sent()
        while self._events:
            self._events.pop().synchronize()

    def _pinned(self, tensor: Tensor) -> Tensor | None:
        """Pinned memory like a tensor's, as long as there is enough of it."""
        if self._room is None:
            self._room = (free_bytes(torch.device("cpu")) or 0) // PINNED_SHARE
        size = tensor.numel() * tensor.element_size()
        if size > self._room or not is_strided(tensor) or (value := pinned_like(tensor)) is None:
            return None
        self._room -= size
        return value


def pinned_like(tensor: Tensor) -> Tensor | None:
    """Pinned memory on the host, of the shape and type of a tensor; None where its device has none."""
    accelerator = getattr(torch, "accelerator", None)  # torch >= 2.6
    current = torch.device("cuda") if accelerator is None else accelerator.current_accelerator()
    if current is None or current.type != tensor.device.type:
        return None
    try:
        return torch.empty_like(tensor, device="cpu", pin_memory=True)
    except (RuntimeError, TypeError):  # the backend has no allocator of it, or the host has no more
        return None
