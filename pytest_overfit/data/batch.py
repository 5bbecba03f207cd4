"""Any nest of tensors as one batch: walk it, freeze it, fingerprint it, compare two of them.

A nest is a tensor, or a mapping, dataclass, namedtuple, list or tuple of nests, transformers' `BatchEncoding` and
`ModelOutput` included, or an object with attributes and a `to` method of its own, as batches of graphs are. Everything
else is a leaf that is left alone: strings, numbers, numpy arrays, other objects.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

_Nest = TypeVar("_Nest")


def map_tensors(fn: Callable[[Tensor], Tensor], nest: _Nest) -> _Nest:
    """A nest of the same types with `fn` applied to every tensor; the given nest is untouched.

    Example:
        >>> map_tensors(lambda t: t * 2, {"x": torch.ones(2), "name": "a"})
        {'x': tensor([2., 2.]), 'name': 'a'}

    A mapping that takes no items comes back as a dict.
    """
    return _rebuild(nest, lambda child: map_tensors(fn, child), fn)  # type: ignore[no-any-return]


def named_tensors(nest: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its dotted key, in the order of the nest; a bare tensor is called `batch`.

    Example:
        >>> [key for key, _ in named_tensors({"views": [torch.ones(1), torch.ones(1)], "name": "a"})]
        ['views.0', 'views.1']
    """
    if isinstance(nest, Tensor):
        yield "batch", nest
        return
    for key, child in _children(nest):
        for name, tensor in named_tensors(child):
            yield (key if isinstance(child, Tensor) else f"{key}.{name}"), tensor


def freeze_batch(batch: _Nest, device: torch.device | str) -> _Nest:
    """A copy on a device that shares no storage with the original, whatever is done to either.

    Example:
        >>> frozen = freeze_batch(batch, "cuda")

    Tensors lose their graph and keep `requires_grad`; two views of one storage become two tensors. Other leaves are
    deep-copied, or kept where they refuse.
    """

    def copy_tensor(tensor: Tensor) -> Tensor:
        twin = tensor.detach().to(device, copy=True)
        return twin.requires_grad_() if tensor.requires_grad else twin

    def freeze(nest: Any) -> Any:
        if isinstance(nest, Tensor):
            return copy_tensor(nest)
        return _rebuild(nest, freeze, copy_tensor, leaf=_copy_leaf)

    return freeze(nest=batch)  # type: ignore[no-any-return]


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
        digest.update(f"{key}|{_kind(tensor)}|{tensor.layout}|".encode())
        for part in _dense_parts(tensor):
            digest.update(f"{part.dtype}|{tuple(part.shape)}|".encode())
            digest.update(_elements(part).numpy().data)
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Difference:
    """How one tensor of a batch differs from its namesake in another batch.

    `kind` is missing, shape, dtype or value. `first` and `second` say what each batch has (shape, dtype, or
    `nothing`). For a value: `changed` of `total` elements differ in their bits, the largest finite difference is
    `largest` (None where the elements cannot be subtracted).
    """

    key: str
    kind: str
    first: str
    second: str
    changed: int = 0
    total: int = 0
    largest: float | None = None

    def describe(self) -> str:
        """One line.

        Example:
            >>> Difference("depths", "value", "", "", changed=3, total=8, largest=0.5).describe()
            'depths: 3 of 8 elements differ, by up to 0.5'
        """
        if self.kind != "value":
            return f"{self.key}: {self.kind} {self.first} against {self.second}".replace("missing ", "")
        by = "" if self.largest is None else f", by up to {self.largest:.6g}"
        return f"{self.key}: {self.changed} of {self.total} elements differ{by}"


def compare_batches(a: Any, b: Any) -> tuple[Difference, ...]:
    """What differs between two batches, by key; empty where their fingerprints agree.

    Example:
        >>> [d.describe() for d in compare_batches({"x": torch.zeros(2)}, {"x": torch.tensor([0.0, 0.5])})]
        ['x: 1 of 2 elements differ, by up to 0.5']
    """
    first, second = dict(named_tensors(a)), dict(named_tensors(b))
    differences = []
    for key in sorted(first.keys() | second.keys()):
        if key not in first or key not in second:
            here, there = (_kind(side[key]) if key in side else "nothing" for side in (first, second))
            differences.append(Difference(key, "missing", here, there))
        elif (difference := _compare(key, first[key].detach(), second[key].detach())) is not None:
            differences.append(difference)
    return tuple(differences)


def summarize(batch: Any) -> tuple[str, ...]:
    """One line for every tensor: key, dtype, shape, share of finite elements where not all are, smallest and largest.

    Example:
        >>> summarize({"x": torch.tensor([1.0, float("nan")])})
        ('x  float32 (2,)  finite 50.0 %  1 .. 1',)
    """
    return tuple(f"{key}  {_kind(tensor)}  {_range(tensor.detach())}".rstrip() for key, tensor in named_tensors(batch))


def _rebuild(
    nest: Any, recurse: Callable[[Any], Any], fn: Callable[[Tensor], Tensor], leaf: Callable[[Any], Any] = lambda x: x
) -> Any:
    if isinstance(nest, Tensor):
        return fn(nest)
    if isinstance(nest, PackedSequence):  # its batch sizes must stay on the host
        sorted_by, unsorted_by = (None if i is None else fn(i) for i in (nest.sorted_indices, nest.unsorted_indices))
        return PackedSequence(fn(nest.data), nest.batch_sizes.clone(), sorted_by, unsorted_by)
    if isinstance(nest, Mapping):
        return _rebuild_mapping(nest, {key: recurse(value) for key, value in nest.items()})
    if dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        twin = copy.copy(nest)
        for field in dataclasses.fields(nest):
            if hasattr(nest, field.name):
                object.__setattr__(twin, field.name, recurse(getattr(nest, field.name)))  # also where frozen
        return twin
    if isinstance(nest, tuple) and hasattr(nest, "_make"):
        return nest._make(recurse(value) for value in nest)
    if isinstance(nest, (list, tuple)):
        values = [recurse(value) for value in nest]
        return values if type(nest) is list else type(nest)(values)
    if is_carrier(nest):
        twin = copy.copy(nest)
        for name, value in vars(nest).items():
            vars(twin)[name] = recurse(value)
        return twin
    return leaf(nest)


def is_carrier(thing: Any) -> bool:
    """Whether an object is a batch that moves to a device as a whole: it has attributes and a `to` method."""
    return (
        hasattr(thing, "__dict__")
        and callable(getattr(type(thing), "to", None))
        and not isinstance(thing, (type, torch.nn.Module))
    )


def _rebuild_mapping(nest: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    if type(nest) is dict:
        return items
    try:
        twin: Any = copy.copy(nest)  # keeps what the type carries besides its items
        for key, value in items.items():
            twin[key] = value
    except TypeError:
        return items
    return twin


def _children(nest: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(nest, Mapping):
        yield from ((str(key), value) for key, value in nest.items())
    elif dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        yield from ((f.name, getattr(nest, f.name)) for f in dataclasses.fields(nest) if hasattr(nest, f.name))
    elif isinstance(nest, tuple) and hasattr(nest, "_fields"):
        yield from zip(nest._fields, nest, strict=True)
    elif isinstance(nest, (list, tuple)):
        yield from ((str(i), value) for i, value in enumerate(nest))
    elif is_carrier(nest):
        yield from ((name, value) for name, value in vars(nest).items())


def _copy_leaf(leaf: Any) -> Any:
    try:
        return copy.deepcopy(leaf)
    except Exception:  # open files, locks, whatever a batch may carry
        return leaf


def _dense_parts(tensor: Tensor) -> list[Tensor]:
    tensor = tensor.detach()
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.layout is torch.strided:
        return [tensor.int_repr()] if tensor.is_quantized else [tensor]
    sparse = (tensor if tensor.layout is torch.sparse_coo else tensor.to_sparse_coo()).coalesce()  # type: ignore[no-untyped-call]
    return [sparse.indices(), sparse.values()]


def _elements(tensor: Tensor) -> Tensor:
    """The bytes of a dense tensor, (elements, bytes of one), on the host and in the order of its indices."""
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).reshape(flat.numel(), flat.element_size())


def _compare(key: str, a: Tensor, b: Tensor) -> Difference | None:
    if a.dtype != b.dtype or a.layout != b.layout:
        return Difference(key, "dtype", _kind(a), _kind(b))
    if a.is_nested or b.is_nested:
        same = fingerprint(a) == fingerprint(b)
        return None if same else Difference(key, "value", _kind(a), _kind(b), 1, 1)
    if a.shape != b.shape:
        return Difference(key, "shape", str(tuple(a.shape)), str(tuple(b.shape)))
    a, b = (t.dequantize() if t.is_quantized else t.to_dense() for t in (a, b))
    bits = (_elements(a) != _elements(b)).any(-1)
    if not bits.any():
        return None
    wide = torch.complex128 if a.is_complex() else torch.float64
    gap = (a.cpu().to(wide) - b.cpu().to(wide)).abs().reshape(-1)[bits]
    finite = gap[gap.isfinite()]
    largest = float(finite.max()) if finite.numel() else None
    return Difference(key, "value", _kind(a), _kind(b), int(bits.sum()), a.numel(), largest)


def _kind(tensor: Tensor) -> str:
    shape = "nested" if tensor.is_nested else str(tuple(tensor.shape))
    return f"{str(tensor.dtype).removeprefix('torch.')} {shape}"


def _range(tensor: Tensor) -> str:
    if tensor.is_nested or tensor.is_complex() or tensor.numel() == 0:
        return ""
    values = (tensor.dequantize() if tensor.is_quantized else tensor.to_dense()).cpu().to(torch.float64)
    finite = values[values.isfinite()]
    share = "" if finite.numel() == values.numel() else f"finite {100 * finite.numel() / values.numel():.1f} %  "
    return share + (f"{float(finite.min()):.6g} .. {float(finite.max()):.6g}" if finite.numel() else "")
