"""Any nest of tensors as one batch: walk it, freeze it, fingerprint it.

A nest is a tensor, or a mapping, dataclass, namedtuple, list or tuple of nests, transformers' `BatchEncoding` and
`ModelOutput` included, or an object with attributes and a `to` method of its own, as batches of graphs are, and what
such an object holds. Everything else is a leaf that is left alone: strings, numbers, numpy arrays, other objects.
"""

from __future__ import annotations

import dataclasses
import hashlib
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from pytest_overfit.errors import OverfitError
from pytest_overfit.run.elements import copy_of, is_dense, is_wrapper, numbers_of, parts_of
from pytest_overfit.untrusted.objects import (
    attributes,
    contents,
    defines,
    fill,
    is_a,
    items_of,
    state,
    text_of,
    twin_of,
)

_Nest = TypeVar("_Nest")
DEEPEST = 64  # levels of a nest


def map_tensors(fn: Callable[[Tensor], Tensor], nest: _Nest) -> _Nest:
    """A nest of the same types with `fn` applied to every tensor; the given nest is untouched.

    Example:
        >>> map_tensors(lambda t: t * 2, {"x": torch.ones(2), "name": "a"})
        {'x': tensor([2., 2.]), 'name': 'a'}

    A mapping that takes no items comes back as a dict.
    """
    return _Rebuild(fn, lambda leaf: leaf).whole(nest)  # type: ignore[no-any-return]


def named_tensors(nest: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its dotted key, in the order of the nest; a bare tensor is called `batch`.

    Example:
        >>> [key for key, _ in named_tensors({"views": [torch.ones(1), torch.ones(1)], "name": "a"})]
        ['views.0', 'views.1']
    """
    if is_a(nest, Tensor):
        yield "batch", nest
    else:
        yield from _named_tensors(nest, "", frozenset())


def _named_tensors(nest: Any, prefix: str, within: frozenset[int]) -> Iterator[tuple[str, Tensor]]:
    if id(nest) in within or len(within) > DEEPEST:  # an object that holds itself
        return
    for key, child in _children(nest):
        if is_a(child, Tensor):
            yield f"{prefix}{key}", child
        else:
            yield from _named_tensors(child, f"{prefix}{key}.", within | {id(nest)})


def freeze_batch(batch: _Nest, device: torch.device | str) -> _Nest:
    """A copy on a device that shares no storage with the original, whatever is done to either.

    Example:
        >>> frozen = freeze_batch(batch, "cuda")

    Tensors lose their graph and keep `requires_grad`; two views of one storage become two tensors. Of the other
    leaves arrays and sets are copied; objects of other classes are shared.
    """

    return _Rebuild(partial(copy_of, device=device), _copy_leaf).whole(batch)  # type: ignore[no-any-return]


def fingerprint(batch: Any) -> str:
    """SHA-256 over key, dtype, shape and elements in order of every tensor, in hexadecimal.

    Example:
        >>> fingerprint({"x": torch.tensor([1, 2])}) == fingerprint({"x": torch.tensor([2, 1])})
        False

    Strides, device and `requires_grad` do not count; the sign of a zero and the bits of a NaN do. Keys count in sorted
    order. Leaves that are no tensors do not count. Costs a copy to the host (host-device sync).
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(named_tensors(batch), key=lambda item: item[0]):
        digest.update(f"{key}|{kind_of(tensor)}|{tensor.layout}|".encode())
        for part in parts_of(tensor):
            digest.update(f"{part.dtype}|{tuple(part.shape)}|".encode())
            digest.update(elements_of(part).numpy().data)
    return digest.hexdigest()


def summarize(batch: Any) -> tuple[str, ...]:
    """One line for every tensor: key, dtype, shape, share of finite elements where not all are, smallest and largest.

    Example:
        >>> summarize({"x": torch.tensor([1.0, float("nan")])})
        ('x  float32 (2,)  finite 50.0 %  1 .. 1',)
    """
    return tuple(
        f"{key}  {kind_of(tensor)}  {_range(tensor.detach())}".rstrip() for key, tensor in named_tensors(batch)
    )


class _Rebuild:
    """One pass over a nest that gives a nest of the same types.

    Args:
        of_tensor: what becomes of every tensor.
        of_leaf: what becomes of everything else that holds no tensors.
    """

    def __init__(self, of_tensor: Callable[[Tensor], Tensor], of_leaf: Callable[[Any], Any]) -> None:
        self.of_tensor, self.of_leaf = of_tensor, of_leaf
        self.twins: dict[int, Any] = {}  # of objects with attributes: stores of a graph know each other
        self.links: list[tuple[Any, str, Any]] = []
        self.depth = 0

    def whole(self, nest: Any) -> Any:
        """The rebuilt nest, in which a weak reference to one of its objects refers to that one's twin."""
        rebuilt = self.of(nest)
        for twin, name, target in self.links:
            fill(twin, {name: weakref.ref(self.twins.get(id(target), target))})
        return rebuilt

    def of(self, nest: Any) -> Any:
        if is_a(nest, Tensor):
            return self.of_tensor(nest)
        if is_a(nest, PackedSequence):  # its batch sizes must stay on the host
            order = (None if i is None else self.of_tensor(i) for i in (nest.sorted_indices, nest.unsorted_indices))
            return PackedSequence(self.of_tensor(nest.data), nest.batch_sizes.clone(), *order)
        if id(nest) in self.twins:
            return self.twins[id(nest)]
        if self.depth > DEEPEST:
            raise OverfitError(
                f"a {type(nest).__name__} in the batch holds itself, or lies more than {DEEPEST} levels deep",
                where="batch",
                allowed=f"containers in containers, at most {DEEPEST} levels deep",
                hint="leave it out of the batch, or hand over a flat one",
            )
        self.depth += 1
        try:
            return self._container(nest)
        finally:
            self.depth -= 1

    def _container(self, nest: Any) -> Any:
        if is_a(nest, tuple):
            return self._tuple(nest)
        if is_a(nest, list):
            return self._list(nest)
        if is_a(nest, Mapping):
            return self._mapping(nest)
        if _is_record(nest) or is_carrier(nest):
            return self._object(nest)
        return self.of_leaf(nest)

    def _tuple(self, nest: tuple[Any, ...]) -> Any:
        values = [self.of(value) for value in contents(nest)]
        if type(nest) is tuple:
            return tuple(values)
        try:
            twin = tuple.__new__(type(nest), values)
        except TypeError:  # one of C's, as what ``torch.max`` returns
            return type(nest)(values)
        attributes(twin).update({name: self.of(value) for name, value in attributes(nest).items()})
        return twin

    def _list(self, nest: list[Any]) -> Any:
        twin = [] if type(nest) is list else twin_of(nest)
        list.extend(twin, [self.of(value) for value in contents(nest)])
        self._take_state(twin, nest)
        return twin

    def _mapping(self, nest: Any) -> Any:
        items = {key: self.of(value) for key, value in items_of(nest)}
        if type(nest) is dict:
            return items
        twin = twin_of(nest)
        if twin is None:
            return items
        if is_a(nest, dict):
            base: Any = OrderedDict if is_a(nest, OrderedDict) else dict
            if is_a(nest, defaultdict):
                twin.default_factory = nest.default_factory
            for key, value in items.items():
                base.__setitem__(twin, key, value)
            given = {id(value): items[key] for key, value in items_of(nest)}  # an item may be an attribute as well
            self._take_state(twin, nest, given)
            return twin
        self._take_state(twin, nest)
        made = {id(tensor) for _, tensor in named_tensors(twin)}
        return twin if len(made) == len({id(tensor) for _, tensor in named_tensors(nest)}) else items

    def _object(self, nest: Any) -> Any:
        twin = twin_of(nest)
        if twin is None:
            return nest
        self._take_state(twin, nest)
        return twin

    def _take_state(self, twin: Any, nest: Any, known: Mapping[int, Any] | None = None) -> None:
        held = state(nest)
        if not held:
            return
        self.twins[id(nest)] = twin
        for name, value in held.items():
            if is_a(value, weakref.ref):
                self.links.append((twin, name, value()))
            elif known and id(value) in known:
                fill(twin, {name: known[id(value)]})
            else:
                fill(twin, {name: self.of(value)})


def is_carrier(thing: Any) -> bool:
    """Whether an object is a batch that moves to a device as a whole: it has attributes and a `to` method."""
    return defines(thing, "to") and bool(attributes(thing)) and not is_a(thing, type, torch.nn.Module, Tensor)


def _is_record(thing: Any) -> bool:
    return dataclasses.is_dataclass(type(thing))


def _children(nest: Any) -> Iterator[tuple[str, Any]]:
    if is_a(nest, Mapping):
        yield from ((text_of(key), value) for key, value in items_of(nest))
    elif is_a(nest, tuple):
        values = contents(nest)
        names = getattr(type(nest), "_fields", ())
        yield from zip(names if len(names) == len(values) else map(str, range(len(values))), values, strict=True)
    elif is_a(nest, list):
        yield from ((str(i), value) for i, value in enumerate(contents(nest)))
    elif _is_record(nest):
        held = state(nest)
        yield from ((f.name, held[f.name]) for f in dataclasses.fields(nest) if f.name in held)
    elif is_carrier(nest):
        yield from state(nest).items()


def _copy_leaf(leaf: Any) -> Any:
    """Arrays and plain containers are copied; another object is left to whoever made it."""
    if type(leaf) in (np.ndarray, set, deque, bytearray):
        return leaf.copy()
    return leaf


def elements_of(tensor: Tensor) -> Tensor:
    """The bytes of a dense tensor, (elements, bytes of one), on the host and in the order of its indices."""
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).reshape(flat.numel(), flat.element_size())


def kind_of(tensor: Tensor) -> str:
    """The element type and the shape of a tensor, for a message."""
    shape = "nested" if tensor.is_nested else str(tuple(tensor.shape))
    return f"{str(tensor.dtype).removeprefix('torch.')} {shape}"


def _range(tensor: Tensor) -> str:
    values = numbers_of(tensor)
    if values is None or values.is_complex() or tensor.is_nested:
        return ""
    if not is_dense(tensor) and not tensor.is_quantized and not is_wrapper(tensor):
        values = tensor.to_dense()
    values = values.cpu().to(torch.float64)
    finite = values[values.isfinite()]
    if not values.numel():
        return ""
    share = "" if finite.numel() == values.numel() else f"finite {100 * finite.numel() / values.numel():.1f} %  "
    return share + (f"{float(finite.min()):.6g} .. {float(finite.max()):.6g}" if finite.numel() else "")
