"""Nests of tensors: walked, frozen, fingerprinted and compared."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from pytest_overfit.run.batch import (
    fingerprint,
    freeze_batch,
    map_tensors,
    named_tensors,
    summarize,
)
from pytest_overfit.run.batch_differences import Difference, compare_batches


class Point(NamedTuple):
    """A named pair."""

    x: torch.Tensor
    y: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """A record that cannot be assigned to."""

    image: torch.Tensor
    name: str = "a"


@dataclasses.dataclass
class Derived:
    """A record with a field that its constructor does not take."""

    image: torch.Tensor
    twice: torch.Tensor = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.twice = self.image * 2


class Encoding(UserDict[str, Any]):
    """A mapping with attributes of its own, in the manner of transformers' BatchEncoding."""

    def __init__(self, data: dict[str, Any], encodings: str) -> None:
        super().__init__(data)
        self.encodings = encodings


class Rows(list[Any]):
    """A list with a class of its own."""


NESTS: dict[str, tuple[Any, list[str]]] = {
    "tensor": (torch.ones(2), ["batch"]),
    "dict": ({"a": torch.ones(1), "b": {"c": torch.ones(2)}, "name": "x"}, ["a", "b.c"]),
    "list": ([torch.ones(1), "x", [torch.ones(1)]], ["0", "2.0"]),
    "tuple": ((torch.ones(1), (torch.ones(1), 3)), ["0", "1.0"]),
    "namedtuple": (Point(torch.ones(1), {"z": torch.ones(1)}), ["x", "y.z"]),
    "frozen dataclass": (Frozen(torch.ones(1)), ["image"]),
    "derived dataclass": (Derived(torch.ones(1)), ["image", "twice"]),
    "user dict": (Encoding({"ids": torch.ones(1)}, "fast"), ["ids"]),
    "ordered dict": (OrderedDict(b=torch.ones(1), a=torch.ones(1)), ["b", "a"]),
    "default dict": (defaultdict(list, {"a": [torch.ones(1)]}), ["a.0"]),
    "list of a class": (Rows([torch.ones(1)]), ["0"]),
    "numbered dict": ({0: torch.ones(1), 1: None}, ["0"]),
}


@pytest.mark.parametrize("kind", NESTS)
def test_names_are_dotted_keys(kind: str) -> None:
    """Every tensor is found under its dotted key, in the order of the nest."""
    nest, names = NESTS[kind]
    assert [name for name, _ in named_tensors(nest)] == names


@pytest.mark.parametrize("kind", NESTS)
def test_map_keeps_types_and_leaves_the_nest_alone(kind: str) -> None:
    """The result has the same types and keys and mapped tensors, and the given nest its old ones."""
    nest, names = NESTS[kind]
    before = {name: tensor.clone() for name, tensor in named_tensors(nest)}
    mapped = map_tensors(lambda t: t + 5, nest)
    assert type(mapped) is type(nest)
    after = dict(named_tensors(mapped))
    assert list(after) == names
    assert all(torch.equal(after[name], before[name] + 5) for name in names)
    assert all(torch.equal(tensor, before[name]) for name, tensor in named_tensors(nest))


def test_map_keeps_what_is_no_tensor() -> None:
    """Strings, attributes of a mapping and its default factory pass through."""
    assert map_tensors(torch.neg, {"name": "x", "n": 3, "none": None}) == {"name": "x", "n": 3, "none": None}
    assert map_tensors(torch.neg, NESTS["user dict"][0]).encodings == "fast"
    assert map_tensors(torch.neg, NESTS["frozen dataclass"][0]).name == "a"
    assert map_tensors(torch.neg, NESTS["default dict"][0])["new"] == []


def test_read_only_mapping_becomes_a_dict() -> None:
    """A mapping that takes no items is handed back as a dict of the mapped tensors."""
    nest: Any = MappingProxyType({"a": torch.ones(1)})
    mapped = map_tensors(torch.neg, nest)
    assert type(mapped) is dict
    assert mapped["a"].tolist() == [-1.0]


def test_packed_sequences() -> None:
    """The data of a packed sequence are mapped, its batch sizes are kept."""
    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    mapped = map_tensors(lambda t: t * 2, packed)
    assert isinstance(mapped, PackedSequence)
    assert mapped.data.tolist() == [2.0] * 5
    assert torch.equal(mapped.batch_sizes, packed.batch_sizes)


@pytest.mark.parametrize("kind", NESTS)
def test_frozen_batch_shares_no_storage(kind: str) -> None:
    """Writing to the original does not reach the frozen copy, nor the other way round."""
    nest, _ = NESTS[kind]
    frozen = freeze_batch(nest, "cpu")
    assert fingerprint(frozen) == fingerprint(nest)
    storages = {tensor.untyped_storage().data_ptr() for _, tensor in named_tensors(nest)}
    assert not storages & {tensor.untyped_storage().data_ptr() for _, tensor in named_tensors(frozen)}


def test_views_of_one_storage_become_two() -> None:
    """Tensors that alias each other, or themselves, do not in the copy."""
    base = torch.arange(6.0)
    frozen = freeze_batch({"a": base, "b": base[2:], "c": torch.ones(1).expand(4)}, "cpu")
    frozen["a"].zero_()
    frozen["c"][0] = 7
    assert frozen["b"].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert frozen["c"].tolist() == [7.0, 1.0, 1.0, 1.0]


def test_freezing_cuts_the_graph_and_keeps_requires_grad() -> None:
    """A tensor that depends on parameters becomes a leaf; what asked for a gradient still does."""
    weight = torch.ones(2, requires_grad=True)
    frozen = freeze_batch({"w": weight, "y": weight * 2, "x": torch.ones(2)}, "cpu")
    assert all(tensor.is_leaf for tensor in frozen.values())
    assert [frozen[key].requires_grad for key in "wyx"] == [True, True, False]


def test_other_leaves_are_copied_too() -> None:
    """Arrays and lists of strings do not change with the original; what refuses to be copied is kept."""

    class Stubborn:
        def __deepcopy__(self, memo: dict[int, Any]) -> Any:
            raise TypeError("no")

    stubborn = Stubborn()
    batch: dict[str, Any] = {"array": np.zeros(2), "names": ["a"], "stubborn": stubborn}
    frozen = freeze_batch(batch, "cpu")
    batch["array"][0], batch["names"][0] = 1, "b"
    assert frozen["array"].tolist() == [0, 0]
    assert frozen["names"] == ["a"]
    assert frozen["stubborn"] is stubborn


KINDS: dict[str, Callable[[], torch.Tensor]] = {
    "bfloat16": lambda: torch.tensor([1.5, 2.5], dtype=torch.bfloat16),
    "float8": lambda: torch.tensor([1.5, 2.5]).to(torch.float8_e4m3fn),
    "bool": lambda: torch.tensor([True, False]),
    "scalar": lambda: torch.tensor(3),
    "empty": lambda: torch.empty(0, 4),
    "complex": lambda: torch.tensor([1 + 2j, 3 - 1j]),
    "conjugate": lambda: torch.tensor([1 + 2j, 3 - 1j]).conj(),
    "transposed": lambda: torch.arange(6).reshape(2, 3).T,
    "sparse": lambda: torch.sparse_coo_tensor(torch.tensor([[0, 1]]), [3.0, 4.0], (2,), check_invariants=True),
    "compressed": lambda: torch.sparse_csr_tensor([0, 1, 2], [0, 1], [3.0, 4.0], (2, 2), check_invariants=True),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:.*uantiz")
def test_every_kind_of_tensor(kind: str) -> None:
    """Each kind of tensor has a fingerprint, equals its frozen copy and has a line in the summary."""
    batch = {"x": KINDS[kind]()}
    assert fingerprint(batch) == fingerprint({"x": KINDS[kind]()})
    assert compare_batches(batch, freeze_batch(batch, "cpu")) == ()
    assert len(summarize(batch)) == 1


def test_nested_tensors() -> None:
    """A ragged tensor differs from another by its elements."""
    jagged = [torch.nested.as_nested_tensor([torch.ones(2), torch.ones(n)], layout=torch.jagged) for n in (3, 3, 4)]
    assert fingerprint(jagged[0]) == fingerprint(jagged[1]) != fingerprint(jagged[2])
    assert compare_batches(jagged[0], jagged[1]) == ()
    assert len(compare_batches(jagged[0], jagged[2])) == 1


def test_fingerprint_is_of_the_logical_order() -> None:
    """Strides, device flags and the order of keys do not count; the order of elements does."""
    a = torch.arange(6.0).reshape(2, 3)
    assert fingerprint({"x": a, "y": a}) == fingerprint({"y": a.T.contiguous().T, "x": a.clone().requires_grad_()})
    assert fingerprint({"x": a}) != fingerprint({"x": a.flip(0)})


@pytest.mark.parametrize(
    "other",
    [
        {"y": torch.zeros(4)},
        {"x": torch.zeros(2, 2)},
        {"x": torch.zeros(4, dtype=torch.int32)},
        {"x": torch.tensor([0.0, 0.0, 0.0, -0.0])},
        {"x": torch.tensor([0.0, 0.0, 0.0, math.nan])},
        {"x": torch.zeros(4), "y": torch.zeros(0)},
        {},
    ],
)
def test_fingerprint_and_comparison_agree(other: dict[str, torch.Tensor]) -> None:
    """Another key, shape, type, sign of zero, NaN or extra tensor changes the fingerprint, and is a difference."""
    batch = {"x": torch.zeros(4)}
    assert fingerprint(batch) != fingerprint(other)
    assert compare_batches(batch, other)


@given(st.lists(st.floats(width=32), min_size=1, max_size=8), st.lists(st.floats(width=32), min_size=1, max_size=8))
@settings(deadline=None)
def test_no_difference_means_the_same_fingerprint(a: list[float], b: list[float]) -> None:
    """Comparison and fingerprint never disagree, NaN and Inf included."""
    first, second = ({"x": torch.tensor(values)} for values in (a, b))
    assert (compare_batches(first, second) == ()) == (fingerprint(first) == fingerprint(second))
    assert compare_batches(first, {"x": torch.tensor(a)}) == ()


def test_differences_line_by_line() -> None:
    """Each difference says what the two sides have, and for numbers how many differ and by how much."""
    first = {
        "a": torch.zeros(2, 2),
        "b": torch.zeros(3),
        "c": torch.zeros(2),
        "d": torch.ones(1),
        "same": torch.ones(1),
    }
    second = {
        "a": torch.tensor([[0.0, 0.5], [0.0, -2.0]]),
        "b": torch.zeros(4),
        "c": torch.zeros(2).int(),
        "e": {"f": torch.ones(1)},
    }
    second["same"] = torch.ones(1)
    assert [difference.describe() for difference in compare_batches(first, second)] == [
        "a: 2 of 4 elements differ, by up to 2",
        "b: shape (3,) against (4,)",
        "c: dtype float32 (2,) against int32 (2,)",
        "d: float32 (1,) against nothing",
        "e.f: nothing against float32 (1,)",
    ]


def test_largest_difference_is_the_largest_finite_one() -> None:
    """A NaN on one side counts as changed and not as a size; bool and integers have sizes too."""
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([math.nan, 2.5, 3.0])
    assert compare_batches({"x": a}, {"x": b})[0] == Difference(
        "x", "value", "float32 (3,)", "float32 (3,)", changed=2, total=3, largest=0.5
    )
    only_nan = compare_batches({"x": a[:1]}, {"x": b[:1]})[0]
    assert (only_nan.largest, only_nan.describe()) == (None, "x: 1 of 1 elements differ")
    assert compare_batches(torch.tensor([True]), torch.tensor([False]))[0].largest == 1
    assert compare_batches(torch.tensor([5]), torch.tensor([2]))[0].largest == 3


def test_summary_lines() -> None:
    """One line for every tensor, with the finite share only where something is not finite."""
    batch = {
        "x": torch.tensor([[1.0, -2.0]]),
        "y": torch.tensor([math.nan, 3.0, math.inf, 4.0]),
        "mask": torch.tensor([True, False]),
        "none": torch.empty(0),
        "gone": torch.tensor([math.nan]),
    }
    assert summarize(batch) == (
        "x  float32 (1, 2)  -2 .. 1",
        "y  float32 (4,)  finite 50.0 %  3 .. 4",
        "mask  bool (2,)  0 .. 1",
        "none  float32 (0,)",
        "gone  float32 (1,)  finite 0.0 %",
    )
