"""The outputs of models held as they are, so that the loss on its own can be asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.diagnose.questions.tensors import is_real
from pytest_overfit.run.task import Heard, Terms

Forward = Callable[[Any], tuple[Heard, Terms]]
Change = Callable[[Tensor], Tensor]
HUGE = 1e4


class Free:
    """The outputs of the root modules, replaced by leaves that are kept from call to call."""

    def __init__(self) -> None:
        self.leaves: dict[tuple[int, int, str], Tensor] = {}
        self.counts: dict[int, int] = {}
        self.stored: dict[tuple[int, int], Any] = {}

    def begin(self) -> None:
        self.counts.clear()

    def output(self, name: str, module: nn.Module, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        call = self.counts.get(id(module), 0)
        self.counts[id(module)] = call + 1
        key = (id(module), call)
        if key not in self.stored:
            with torch.no_grad():
                self.stored[key] = original(*args, **kwargs)
        return self._replaced(self.stored[key], key, name or "output")

    def _replaced(self, nest: Any, key: tuple[int, int], path: str) -> Any:
        if is_real(nest) and nest.dim():  # a single number is the loss itself, of a model that computes its own
            place = (*key, path)
            if place not in self.leaves:
                self.leaves[place] = _sane(nest).requires_grad_()
            return self.leaves[place] * 1  # a view of a leaf that in-place code may write into
        if isinstance(nest, dict):
            return (
                type(nest)({k: self._replaced(v, key, f"{path}.{k}") for k, v in nest.items()})
                if type(nest) is dict
                else _filled(nest, {k: self._replaced(v, key, f"{path}.{k}") for k, v in nest.items()})
            )
        if isinstance(nest, tuple) and hasattr(nest, "_fields"):
            return type(nest)(*(self._replaced(v, key, f"{path}.{i}") for i, v in enumerate(nest)))
        if isinstance(nest, (list, tuple)):
            return type(nest)(self._replaced(v, key, f"{path}.{i}") for i, v in enumerate(nest))
        return nest


def _filled(mapping: Any, values: dict[str, Any]) -> Any:
    for key, value in values.items():
        mapping[key] = value
    return mapping


def _sane(tensor: Tensor) -> Tensor:
    """Where free numbers start: what the model said, or zeros where that is nothing to start from."""
    plain = tensor.detach().clone().float()
    sound = bool(torch.isfinite(plain).all()) and float(plain.abs().max()) < HUGE if plain.numel() else False
    return plain if sound else torch.zeros_like(plain)


@contextlib.contextmanager
def freed(named: list[tuple[str, nn.Module]]) -> Iterator[Free]:
    """The outputs of these modules, replaced by leaves with the values that they have in their first call."""
    free = Free()

    def instead(name: str, module: nn.Module) -> Callable[..., Any]:
        original = module.forward
        return lambda *args, **kwargs: free.output(name, module, original, args, kwargs)

    own = [(module, vars(module).get("forward")) for _, module in named]
    try:
        for name, module in named:
            vars(module)["forward"] = instead(name, module)
        yield free
    finally:
        for module, forward in own:
            vars(module).pop("forward", None)
            if forward is not None:
                vars(module)["forward"] = forward


class Held:
    """The loss of a batch, with the outputs of its models held as they are; repeatable.

    Args:
        forward: outputs and terms of a batch.
        free: what holds them.
    """

    def __init__(self, forward: Forward, free: Free, batch: Any) -> None:
        self.forward, self.free = forward, free
        self(batch)  # chance is drawn by the loss alone from here on

    def __call__(self, batch: Any) -> tuple[Heard, Terms]:
        self.free.begin()
        terms = self.forward(batch)[1]
        return Heard((called(place), leaf) for place, leaf in self.free.leaves.items()), terms

    @contextlib.contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """Other values of all outputs, for a block."""
        kept = [(leaf, leaf.detach().clone()) for leaf in self.free.leaves.values()]
        with torch.no_grad():
            for leaf, value in kept:
                leaf.copy_(change(value))
        try:
            yield
        finally:
            with torch.no_grad():
                for leaf, value in kept:
                    leaf.copy_(value)


def called(place: tuple[int, int, str]) -> str:
    """The name of an output, with the number of its call from the second on."""
    return place[2].removeprefix("output.") + (f" of call {place[1] + 1}" if place[1] else "")


def rows_of(tensor: Tensor, samples: int) -> Tensor | None:
    """A tensor with the axis of samples first: its first axis, or behind that of a sequence; None where it has none."""
    if tensor.dim() and len(tensor) == samples:
        return tensor
    return tensor.transpose(0, 1) if tensor.dim() > 2 and tensor.shape[1] == samples else None


def by_rows(tensors: Mapping[str, Tensor], samples: int) -> dict[str, Tensor]:
    """Those that have an axis of samples, with it first and without a graph."""
    rows = ((name, rows_of(tensor.detach(), samples)) for name, tensor in tensors.items())
    return {name: each for name, each in rows if each is not None}
