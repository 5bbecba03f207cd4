"""Is the batch of every step what it was? Changes that are undone before the end of a run are seen here.

A write into a tensor counts up its version, which never goes back: it is looked at after the steps 1, 2, 4, 8, ...,
with what the writes came to, and after the last; in one step more every write into the batch is followed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_overfit.run.batch import fingerprint, named_tensors
from pytest_overfit.run.update import Around, Row, Update

MOST_ELEMENTS = 4_000_000  # of a batch on the CPU that is looked at though no version says so


class Constant(Around):
    """An update around which the batch is watched.

    ``changed_at`` is the first step (from 1) after which the batch was seen to be another; ``written`` are the tensors
    that were written into, whatever that came to.
    """

    def __init__(self, inner: Update, batch: Any, before: str) -> None:
        super().__init__(inner)
        self.batch, self.before = batch, before
        self.tensors = [(key, tensor) for key, tensor in named_tensors(batch) if _is_plain(tensor)]
        self.counted = [tensor for _, tensor in self.tensors if not tensor.is_inference()]
        self.versions = [tensor._version for tensor in self.counted]
        on_cpu = all(tensor.device.type == "cpu" for _, tensor in self.tensors)
        self.cheap = on_cpu and sum(tensor.numel() for _, tensor in self.tensors) <= MOST_ELEMENTS
        self.written: dict[str, None] = {}
        self.changed_at: int | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with self.inner.running():
            try:
                yield
            finally:
                self._look()

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        row = self.inner(step, look=look, observe=observe)
        if not (step + 1) & step:  # 1, 2, 4, 8, ... steps are done
            self._look()
            watched = self.changed_at is None and (self.cheap or self.written)
            if watched and fingerprint(self.batch) != self.before:
                self.changed_at = step + 1
        return row

    def _look(self) -> None:
        pairs = zip(self.counted, self.versions, strict=True)
        if changed := {id(tensor) for tensor, version in pairs if tensor._version != version}:
            self.written = {key: None for key, tensor in self.tensors if id(tensor) in changed}


class Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every operation that writes into one of some tensors, also through ``.data`` and views.

    ``changed`` is the name of the first one that was given other elements.
    """

    def __init__(self, tensors: Sequence[tuple[str, Tensor]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages = {_storage(tensor): (key, tensor) for key, tensor in tensors}
        self.changed: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        watched = [] if self.changed else list(self._written(func, args, kwargs))
        before = [tensor.detach().clone() for _, tensor in watched]
        result = func(*args, **kwargs)
        for (key, tensor), value in zip(watched, before, strict=True):
            if self.changed is None and fingerprint(tensor.detach()) != fingerprint(value):
                self.changed = key
        return result

    def _written(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
        if not func._schema.is_mutable:
            return
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            given = args[position] if position < len(args) else kwargs.get(argument.name)
            for tensor in given if isinstance(given, (list, tuple)) else [given]:
                if isinstance(tensor, Tensor) and _is_plain(tensor) and _storage(tensor) in self.storages:
                    yield self.storages[_storage(tensor)]


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_meta


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
