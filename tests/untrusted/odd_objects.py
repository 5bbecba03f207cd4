"""Objects that run code where they are looked at, and a model that holds one."""

from __future__ import annotations

import weakref
from typing import Any
from unittest.mock import MagicMock, Mock

import torch
from torch import Tensor, nn

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
