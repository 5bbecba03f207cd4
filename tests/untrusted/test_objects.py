"""Objects of others are looked at without running their code, and batches of them work."""

from __future__ import annotations

import contextlib
from collections import OrderedDict, UserDict, deque
from collections.abc import MutableMapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock, Mock

import pytest
import torch

from pytest_overfit.run.batch import freeze_batch, map_tensors
from pytest_overfit.untrusted.objects import attributes, contents, defines, fill, is_a, items_of, state, twin_of
from tests.untrusted.odd_objects import Effectful, Listed, Reserved, Rows, TouchedError, Untouchable

# The parts, one by one.


def test_the_type_is_asked_and_not_the_object() -> None:
    """An object may say that it is of another class, and a mock has every method."""
    assert isinstance(Mock(spec=dict), dict)
    assert not is_a(Mock(spec=dict), dict)
    assert not defines(MagicMock(), "state_dict")
    assert defines(Mock(), "assert_called")
    assert not defines(Effectful(), "state_dict")
    assert is_a(Untouchable(), Untouchable)
    assert attributes(Untouchable()) == {"inner": {"count": 1}}


def test_a_computed_dict_is_not_asked() -> None:
    """``__dict__`` may be a property as well."""

    class Odd:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise TouchedError

    assert attributes(Odd()) == {}


@pytest.mark.parametrize(
    ("thing", "held"),
    [
        (Rows((1, 2)), [1, 2]),
        (Listed((1, 2)), [1, 2]),
        (Reserved(a=1, b=2), [1, 2]),
        (OrderedDict(b=1, a=2), [1, 2]),
        (deque([1, 2]), [1, 2]),
        (frozenset([1]), [1]),
        (UserDict(a=1), []),
        ("ab", []),
        (3, []),
    ],
)
def test_contents(thing: Any, held: list[Any]) -> None:
    """Of containers of Python and their subclasses; of nothing else."""
    assert contents(thing) == held


def test_items_of_a_mapping_that_tells_none() -> None:
    """Those of its dict; of another what it keeps as attributes."""

    class Lazy(MutableMapping[str, Any]):
        def __init__(self) -> None:
            self.kept = torch.ones(1)

        def _raise(self, *args: Any) -> Any:
            raise TouchedError

        __getitem__ = __setitem__ = __delitem__ = __iter__ = __len__ = _raise

    lazy = Lazy()
    assert items_of(Reserved(a=1)) == [("a", 1)]
    assert items_of(lazy) == [("kept", lazy.kept)]
    assert map_tensors(torch.neg, lazy).kept.tolist() == [-1.0]


def test_twins_are_made_without_constructors() -> None:
    """Slots and attributes are given to them one by one; what has no twin gives none."""

    @dataclass(slots=True)
    class Slotted:
        x: int

        def __post_init__(self) -> None:
            raise TouchedError

    with contextlib.suppress(TouchedError):
        Slotted(1)
    twin = twin_of(object.__new__(Slotted))
    fill(twin, {"x": 3})
    assert state(twin) == {"x": 3}
    assert type(twin_of(Reserved(a=1))) is Reserved
    assert twin_of((1, 2)) is None


def test_shapes_and_results_of_torch_in_a_batch() -> None:
    """Tuples that C made keep their class."""

    class Pair(NamedTuple):
        best: Any
        size: torch.Size

    best = torch.ones(2, 2).max(0)
    mapped = map_tensors(lambda t: t + 1, Pair(best, best.values.shape))
    assert type(mapped.best) is type(best)
    assert mapped.best.values.tolist() == [2.0, 2.0]
    assert mapped.size == torch.Size([2])
    assert type(mapped.size) is torch.Size


def test_a_namespace_is_no_batch() -> None:
    """It has no ``to``, and is left alone in one."""
    thing = SimpleNamespace(x=torch.ones(1))
    assert freeze_batch({"a": thing}, "cpu")["a"] is thing
