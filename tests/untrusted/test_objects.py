"""Objects of others are looked at without running their code, and batches of them work."""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict, UserDict, deque
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock, Mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.run.batch import fingerprint, freeze_batch, map_tensors, named_tensors
from pytest_overfit.run.reachable import reachable
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.untrusted.objects import attributes, contents, defines, fill, is_a, items_of, state, twin_of

LABELS = torch.arange(6) % 3


class TouchedError(Exception):
    """Somebody ran the code of an object."""


class Untouchable:
    """Whatever is asked of it raises."""

    def __init__(self) -> None:
        self.__dict__["inner"] = {"count": 1}

    def _raise(self, *args: Any, **kwargs: Any) -> Any:
        raise TouchedError

    __getattr__ = __setattr__ = __delattr__ = _raise
    __len__ = __iter__ = __bool__ = __eq__ = __hash__ = __contains__ = __getitem__ = _raise
    __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = __getstate__ = __repr__ = __str__ = _raise
    __class__ = property(_raise)
    state_dict = load_state_dict = property(_raise)


class Rows(tuple[Any, ...]):
    """A tuple whose length is none of anybody's business, as the irreps of an equivariant network."""

    def _raise(self, *args: Any) -> Any:
        raise TouchedError

    __len__ = __iter__ = __getitem__ = __bool__ = __eq__ = __hash__ = __copy__ = __deepcopy__ = _raise


class Listed(list[Any]):
    """A list with the same reserve."""

    def _raise(self, *args: Any) -> Any:
        raise TouchedError

    __len__ = __iter__ = __getitem__ = __bool__ = __eq__ = __copy__ = __deepcopy__ = _raise


class Reserved(dict[str, Any]):
    """A dict that does not tell its items."""

    def _raise(self, *args: Any) -> Any:
        raise TouchedError

    items = values = keys = __iter__ = __len__ = __getitem__ = __bool__ = __copy__ = __deepcopy__ = _raise


class Effectful:
    """Attributes whose reading has an effect."""

    def __init__(self) -> None:
        self.read = 0

    @property
    def state_dict(self) -> Any:
        self.read += 1
        return dict

    @property
    def load_state_dict(self) -> Any:
        self.read += 1
        return dict

    @property
    def __wrapped__(self) -> Any:
        self.read += 1
        return self


ODD: dict[str, Any] = {
    "untouchable": Untouchable,
    "rows": lambda: Rows((1, torch.ones(2))),
    "list": lambda: Listed([1, 2]),
    "reserved": lambda: Reserved(a=1),
    "effectful": Effectful,
    "mock": MagicMock,
    "mock of a dict": lambda: Mock(spec=dict),
    "weak": lambda: weakref.proxy(Effectful()),
}


class Holding(nn.Module):
    """Six samples of four numbers to three classes, and a thing beside it."""

    def __init__(self, thing: Any = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))
        self.__dict__["thing"] = thing
        self.things = [thing, {"a": thing}]

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 1e-2)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("place", ["module", "loss", "batch", "output"])
def test_odd_objects_in_a_run(kind: str, place: str) -> None:
    """In the module, in what the loss holds, in the batch, in an output: a run passes, and a short one fails."""
    thing = ODD[kind]()

    class Returning(Holding):
        def forward(self, x: Tensor) -> Any:
            out = super().forward(x)
            return {"logits": out, "thing": thing} if place == "output" else out

    def loss(model: Any, batch: Any) -> Tensor:
        held = thing if place == "loss" else None
        out = model(batch["x"])
        return F.cross_entropy(out["logits"] if isinstance(out, dict) else out, batch["y"]) + 0 * id(held)

    batch = {"x": torch.randn(6, 4), "y": LABELS, **({"thing": thing} if place == "batch" else {})}
    model = (lambda: Returning(thing)) if place == "module" else Returning
    assert run_overfit(model, batch, loss, optimizer=adam).passed
    assert "objective" in run_overfit(model, batch, loss, optimizer=adam, max_steps=3).failure_text()
    if kind == "effectful":
        assert thing.read == 0


def test_an_object_is_asked_for_nothing() -> None:
    """Neither by the walk over what a step holds, nor by a snapshot of a module, nor by a batch."""
    thing = Untouchable()

    def step() -> Any:
        return thing

    found = list(reachable(step))
    assert found == []
    snapshot = Snapshot()
    snapshot.add(Holding(thing))
    snapshot.add_reachable(step)
    snapshot.restore()
    assert freeze_batch({"thing": thing}, "cpu")["thing"] is thing


def test_counters_of_such_objects_come_back() -> None:
    """The dict behind an object is read and written; its attributes are not."""
    thing = Untouchable()
    thing.__dict__["seen"] = 1
    snapshot = Snapshot()
    snapshot.add_reachable(lambda: thing)
    thing.__dict__["seen"] = thing.__dict__["inner"]["count"] = 5
    snapshot.restore()
    assert (thing.__dict__["seen"], thing.__dict__["inner"]["count"]) == (1, 1)


def test_what_a_namespace_holds_is_found_and_comes_back() -> None:
    """Arguments and the state of a loop are kept in one, whose ``__dict__`` is of another kind than that of a class."""
    kept = SimpleNamespace(model=nn.Linear(1, 1), steps=1)
    assert attributes(kept) == {"model": kept.model, "steps": 1}
    assert kept.model in list(reachable(lambda: kept))
    snapshot = Snapshot()
    snapshot.add_reachable(lambda: kept)
    kept.steps = 5
    snapshot.restore()
    assert kept.steps == 1


# A heterogeneous graph, as torch_geometric makes them.


class Store(MutableMapping[str, Any]):
    """Tensors of one kind of node; knows the graph that it belongs to."""

    def __init__(self, parent: Any) -> None:
        self.__dict__["_mapping"], self.__dict__["_parent"] = {}, weakref.ref(parent)

    def __getattr__(self, name: str) -> Any:
        if name == "_mapping":
            raise AttributeError(name)
        try:
            return self._mapping[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._mapping[name] = value

    def __getitem__(self, name: str) -> Any:
        return self._mapping[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._mapping[name] = value

    def __delitem__(self, name: str) -> None:
        del self._mapping[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)

    def __len__(self) -> int:
        return len(self._mapping)

    def __deepcopy__(self, memo: Any) -> Any:
        raise TouchedError

    __copy__ = __deepcopy__


class Graph:
    """Stores by kind; every name that ends in ``_dict`` is collected from them, or a KeyError."""

    def __init__(self) -> None:
        self.__dict__["_stores"] = {}

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_dict"):
            found = {kind: store[name[:-5]] for kind, store in self._stores.items() if name[:-5] in store}
            if not found:
                raise KeyError(f"nothing is called {name[:-5]}")
            return found
        raise AttributeError(name)

    def __getitem__(self, kind: str) -> Store:
        return self._stores.setdefault(kind, Store(self))  # type: ignore[no-any-return]

    def __len__(self) -> int:
        raise TouchedError

    def to(self, device: Any) -> Any:
        raise TouchedError

    def __deepcopy__(self, memo: Any) -> Any:
        raise TouchedError

    __copy__ = __deepcopy__


def graph() -> Graph:
    made = Graph()
    made["user"].x, made["user"].y, made["item"].x = torch.randn(6, 4), LABELS, torch.randn(2, 4)
    return made


def test_a_graph_is_a_batch() -> None:
    """It is trained on; its tensors have names, and a copy has stores of its own that know it."""
    given = graph()
    assert [name for name, _ in named_tensors(given)] == ["_stores.user.x", "_stores.user.y", "_stores.item.x"]
    frozen = freeze_batch(given, "cpu")
    assert fingerprint(frozen) == fingerprint(given)
    assert frozen["user"].x is not given["user"].x
    assert frozen["user"]._parent() is frozen
    assert given["user"]._parent() is given

    def loss(model: Any, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch.x_dict["user"]), batch["user"].y)

    assert run_overfit(Holding, given, loss, optimizer=adam).passed
    short = run_overfit(Holding, given, loss, optimizer=adam, max_steps=3)
    assert "objective" in short.failure_text()


def test_an_object_that_holds_itself_is_a_batch() -> None:
    """Once, and not for ever."""

    class Own:
        def __init__(self) -> None:
            self.x, self.own = torch.ones(2), [self]

        def to(self, device: Any) -> Any:
            raise TouchedError

    given = Own()
    frozen = freeze_batch(given, "cpu")
    assert [name for name, _ in named_tensors(frozen)] == ["x"]
    assert frozen.own[0] is frozen


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
