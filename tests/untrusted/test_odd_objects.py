"""Odd objects in a run and in a batch: none of their code is run, and what they hold comes back."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, MutableMapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.run.batch import fingerprint, freeze_batch, named_tensors
from pytest_overfit.run.reachable import reachable
from pytest_overfit.run.snapshot import Snapshot
from pytest_overfit.untrusted.objects import attributes
from tests.untrusted.odd_objects import LABELS, ODD, Holding, TouchedError, Untouchable, adam


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
