"""How a mistake gets into code that is not ours: a subclass in place of a class, another function in a call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from benchmarks.wild.operators.operator import Setup, Step
from benchmarks.wild.operators.trace import PAIRS, pair_of

Forward = Callable[..., Any]
Pair = Callable[..., Tensor]


def override(module: nn.Module, forward: Forward) -> None:
    """Makes a module an instance of a subclass of its class, whose ``forward`` is this one.

    Args:
        forward: called with the class's own forward, bound to the module, and the arguments of the call.
    """
    base = type(module)

    @functools.wraps(base.forward)
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return forward(functools.partial(base.forward, self), *args, **kwargs)

    module.__class__ = type(base.__name__, (base,), {"forward": call, "__module__": base.__module__})


def on_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """A subclass that returns its class's output, changed."""
    override(module, lambda forward, *args, **kwargs: change(forward(*args, **kwargs)))


class Exchanged(TorchFunctionMode):
    """Calls another function in place of some of torch's, as the same code with that line changed would.

    Args:
        functions: those that are exchanged.
        by: called with the function and its arguments.
        at: the number of the call among them that is exchanged; None for all of them.
    """

    def __init__(self, functions: Iterable[Callable[..., Any]], by: Callable[..., Any], at: int | None = None) -> None:
        super().__init__()
        self.functions, self.by, self.at, self.count = tuple(functions), by, at, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self.functions:
            return func(*args, **kwargs)
        self.count += 1
        if self.at is not None and self.count - 1 != self.at:
            return func(*args, **kwargs)
        return self.by(func, *args, **kwargs)


def exchange_in(
    module: nn.Module, functions: Iterable[Callable[..., Any]], by: Callable[..., Any], at: int | None = None
) -> None:
    """A subclass of a module's class whose ``forward`` calls other functions."""

    def forward(inner: Forward, *args: Any, **kwargs: Any) -> Any:
        with Exchanged(functions, by, at):
            return inner(*args, **kwargs)

    override(module, forward)


def exchange_loss(setup: Setup, number: int, by: Pair) -> None:
    """The loss with one of its loss functions called otherwise.

    Args:
        number: of the call, among those of ``PAIRS``.
        by: called with the function, output, target and the rest of the arguments by keyword.
    """
    inner = setup.loss

    def called(func: Any, *args: Any, **kwargs: Any) -> Any:
        pair = pair_of(args, kwargs)
        return func(*args, **kwargs) if pair is None else by(func, pair[0], pair[1], **pair[2])

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with Exchanged(PAIRS, called, number):
            return inner(model, batch)

    setup.loss = loss


def exchange_target(setup: Setup, number: int, choose: Callable[[Any, Tensor], Tensor]) -> None:
    """The loss with another target in one of its loss functions.

    Args:
        number: of the call, among those of ``PAIRS``.
        choose: the target, of the batch and the target that is right.
    """
    inner = setup.loss

    def loss(model: nn.Module, batch: Any) -> Tensor:
        def called(func: Any, *args: Any, **kwargs: Any) -> Any:
            pair = pair_of(args, kwargs)
            return func(*args, **kwargs) if pair is None else func(pair[0], choose(batch, pair[1]), **pair[2])

        with Exchanged(PAIRS, called, number):
            return inner(model, batch)

    setup.loss = loss


def train_step(
    loss: Callable[[nn.Module, Any], Tensor],
    *,
    before: Callable[[nn.Module, Any], None] = lambda model, batch: None,
    backward: Callable[[Tensor], None] = lambda value: value.backward(),  # type: ignore[no-untyped-call]
    update: Callable[[Optimizer], object] = lambda optimizer: optimizer.step(),
    after: Callable[[nn.Module, Any], None] = lambda model, batch: None,
) -> Step:
    """The usual train step, with one of its lines exchanged or one more at its beginning or end."""

    def step(model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        before(model, batch)
        optimizer.zero_grad()
        value = loss(model, batch)
        backward(value)
        update(optimizer)
        after(model, batch)
        return value.detach()

    return step


def stepping(when: Callable[[int], bool]) -> Callable[[Optimizer], None]:
    """An update that is made in some of the steps; they are counted from 1."""
    count = [0]

    def update(optimizer: Optimizer) -> None:
        count[0] += 1
        if when(count[0]):
            optimizer.step()

    return update


def parent_of(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a part, and the part's name there."""
    above, _, last = name.rpartition(".")
    return model.get_submodule(above), last
