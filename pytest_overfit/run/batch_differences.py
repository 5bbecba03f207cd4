"""What differs between two batches, tensor by tensor."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.run.batch import elements_of, fingerprint, kind_of, named_tensors
from pytest_overfit.run.elements import is_wrapper


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
            here, there = (kind_of(side[key]) if key in side else "nothing" for side in (first, second))
            differences.append(Difference(key, "missing", here, there))
        elif (difference := _compare(key, first[key].detach(), second[key].detach())) is not None:
            differences.append(difference)
    return tuple(differences)


def _compare(key: str, a: Tensor, b: Tensor) -> Difference | None:
    if a.dtype != b.dtype or a.layout != b.layout:
        return Difference(key, "dtype", kind_of(a), kind_of(b))
    if not (_is_comparable(a) and _is_comparable(b)):
        same = fingerprint(a) == fingerprint(b)
        return None if same else Difference(key, "value", kind_of(a), kind_of(b), 1, 1)
    if a.shape != b.shape:
        return Difference(key, "shape", str(tuple(a.shape)), str(tuple(b.shape)))
    a, b = (t.dequantize() if t.is_quantized else t.to_dense() for t in (a, b))
    bits = (elements_of(a) != elements_of(b)).any(-1)
    if not bits.any():
        return None
    wide = torch.complex128 if a.is_complex() else torch.float64
    gap = (a.cpu().to(wide) - b.cpu().to(wide)).abs().reshape(-1)[bits]
    finite = gap[gap.isfinite()]
    largest = float(finite.max()) if finite.numel() else None
    return Difference(key, "value", kind_of(a), kind_of(b), int(bits.sum()), a.numel(), largest)


def _is_comparable(tensor: Tensor) -> bool:
    """Whether a tensor has one number in each place of its shape, as it is or made dense."""
    return not (is_wrapper(tensor) or tensor.is_nested or tensor.is_meta)
