"""The calls of the model itself, kept so that it can be asked again."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from pytest_overfit.diagnose.questions.tensors import is_real, tensors_in
from pytest_overfit.errors.asking import users_code
from pytest_overfit.run.elements import copy_of, dressed, is_dense, is_transforming, numbers_of
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.untrusted.objects import contents, is_a


@dataclass(frozen=True)
class ModelCall:
    """One call of a module that the loss or the step made itself.

    ``classes`` has, by the id of a tensor that was passed, one of the class that it had: kept are its numbers alone.
    """

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    classes: dict[int, Tensor] = field(default_factory=dict)

    def arguments(self, *, mapped: bool = False) -> Iterator[tuple[str, Tensor]]:
        """The tensors that were passed by themselves, or in a list: ``x``, ``views[1]``.

        Of a packed sequence the content alone: the rest says how it is laid out. What stands where nothing can be
        exchanged is left out.

        Args:
            mapped: those inside a mapping too, of which a model need not read all.
        """
        within: set[int] = set()

        def reach(tensor: Tensor) -> Tensor:
            within.add(id(tensor))
            return tensor

        exchanged_in(reach, (self.args, self.kwargs))
        yield from ((name, tensor) for name, tensor in self._named(mapped) if id(tensor) in within)

    def _named(self, mapped: bool) -> Iterator[tuple[str, Tensor]]:
        try:
            names = list(inspect.signature(self.module.forward).parameters)
        except (TypeError, ValueError):
            names = []
        for index, value in enumerate(self.args):
            name = names[index] if index < len(names) else f"argument {index}"
            yield from _listed(name, value)
            if mapped and type(value) is dict:
                yield from ((f"{name}[{key!r}]", item) for key, item in value.items() if is_dense(item))
        for name, value in self.kwargs.items():
            if name in names:
                yield from _listed(name, value)

    def again(self, change: Callable[[Tensor], Tensor] = lambda tensor: tensor, *, seed: int = 0) -> list[Tensor]:
        """The floating-point outputs of the same call with its tensors exchanged.

        Raises:
            Refused: the model does not take them.
        """
        return self.answered(change, seed=seed)[1]

    def answered(
        self, change: Callable[[Tensor], Tensor] = lambda tensor: tensor, *, seed: int = 0
    ) -> tuple[Any, list[Tensor]]:
        """What the same call returns, without a graph; beside it its floating-point outputs."""
        seed_everything(seed)
        with torch.no_grad():
            output = self.output(change)
        found = (numbers_of(tensor) for tensor in tensors_in(output) if is_real(tensor))
        return output, [numbers for numbers in found if numbers is not None]

    def everything(self, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> list[Tensor]:
        """The outputs of the same call with its tensors exchanged, those of whole numbers too.

        Raises:
            Refused: the model does not take them.
        """
        return self.all_of(self.answered(change)[0], change)

    def all_of(self, output: Any, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> list[Tensor]:
        """The outputs that an answer has, but for whole numbers that are handed out as they were handed in."""
        given = [change(tensor) for _, tensor in self.arguments(mapped=True)]

        def is_made(tensor: Tensor) -> bool:
            return is_real(tensor) or not any(
                each.shape == tensor.shape and torch.equal(each.detach(), tensor) for each in given
            )

        found = (numbers_of(tensor) for tensor in tensors_in(output) if is_made(tensor))
        return [numbers for numbers in found if numbers is not None]

    def output(self, change: Callable[[Tensor], Tensor]) -> Any:
        """What the same call with its tensors exchanged returns, with its graph where gradients are on.

        Raises:
            Refused: the model does not take them.
        """

        def exchanged(tensor: Tensor) -> Tensor:
            return dressed(change(tensor), self.classes.get(id(tensor), tensor))

        args, kwargs = exchanged_in(exchanged, self.args), exchanged_in(exchanged, self.kwargs)
        with users_code():
            return self.module(*args, **kwargs)

    def slopes(self, tensor: Tensor) -> Tensor | None:
        """The gradient of all outputs, each element weighed otherwise, along a tensor of the call; None: there is none.

        Raises:
            Refused: the model does not take it.
        """
        leaf = tensor.detach().clone().requires_grad_()
        with torch.enable_grad():
            outputs = [t for t in tensors_in(self.output(lambda t: leaf if t is tensor else t)) if is_real(t)]
            total = sum(t.double().flatten().dot(torch.linspace(0.5, 1.5, t.numel()).to(t).double()) for t in outputs)
        if not isinstance(total, Tensor) or not total.requires_grad:
            return None
        with users_code():
            return torch.autograd.grad(total, leaf, allow_unused=True)[0]


@dataclass(frozen=True)
class InnerCall(ModelCall):
    """The same call, of which the outputs of a part of the model are looked at in place of its own."""

    part: nn.Module | None = None

    def output(self, change: Callable[[Tensor], Tensor]) -> Any:
        return super().output(change) if self.part is None else self._with_part(change)[1]

    def slopes_of_loss(self) -> Tensor | None:
        """The gradient of what the call returns along the first output of the part; None where there is none."""
        seed_everything(0)
        with torch.enable_grad():
            returned, made = self._with_part(lambda tensor: tensor)
        losses = [t for t in tensors_in(returned) if is_real(t) and t.numel() == 1]
        outputs = [t for t in tensors_in(made) if is_real(t) and t.requires_grad]
        if not losses or not losses[0].requires_grad or not outputs:
            return None
        with users_code():
            return torch.autograd.grad(losses[0], outputs[0], allow_unused=True)[0]

    def _with_part(self, change: Callable[[Tensor], Tensor]) -> tuple[Any, Any]:
        """What the call returns, and what the part made last; None where it was not called."""
        assert self.part is not None
        made: list[Any] = []
        handle = nn.Module.register_forward_hook(self.part, lambda module, args, output: made.append(output))
        try:
            return super().output(change), made[-1] if made else None
        finally:
            handle.remove()


def before_its_loss(call: ModelCall, samples: int) -> InnerCall | None:
    """The call, looked at where its last part hands out a row for every sample; None where no part does.

    A model that returns its own loss hides its outputs.
    """
    last: list[nn.Module] = []

    def told(module: nn.Module, args: Any, output: Any) -> None:
        if any(is_real(t) and t.dim() > 1 and t.shape[0] == samples for t in tensors_in(output)):
            last[:] = [module]

    parts = [module for module in call.module.modules() if module is not call.module]
    handles = [nn.Module.register_forward_hook(module, told) for module in parts]
    try:
        call.again()
    finally:
        for handle in handles:
            handle.remove()
    return InnerCall(call.name, call.module, call.args, call.kwargs, call.classes, last[0]) if last else None


Moved = Callable[[Tensor, Tensor], bool]  # of a tensor as it is, and with an exchange


def where_it_arises(call: ModelCall, change: Callable[[Tensor], Tensor], moved: Moved) -> str:
    """The module that first hands out what has moved, though nothing that it was given has; empty where none does."""
    seen: list[list[list[Tensor]]] = []
    names = {id(module): name or type(call.module).__name__ for name, module in call.module.named_modules()}
    found: list[str] = []

    def watched(compared: bool) -> None:
        given: list[list[Tensor]] = []
        left = iter(seen)

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            given.append([t.detach() for t in tensors_in([args, kwargs]) if is_real(t)])

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            tensors = [given.pop(), [t.detach() for t in tensors_in(output) if is_real(t)]]
            if not compared:
                seen.append(tensors)
            elif not found and (before := next(left, None)) is not None:
                into, out = (_any_moved(a, b, moved) for a, b in zip(before, tensors, strict=True))
                if out and not into:
                    found.append(names[id(module)])

        handles = [nn.Module.register_forward_pre_hook(m, enter, with_kwargs=True) for m in call.module.modules()]
        handles += [nn.Module.register_forward_hook(m, leave) for m in call.module.modules()]
        try:
            call.again(change if compared else lambda tensor: tensor)
        finally:
            for handle in handles:
                handle.remove()

    watched(False)
    watched(True)
    return found[0] if found else ""


def _any_moved(before: list[Tensor], after: list[Tensor], moved: Moved) -> bool:
    return any(a.shape == b.shape and moved(a, b) for a, b in zip(before, after, strict=False))


def _listed(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if is_dense(value):
        yield name, value
    elif is_a(value, PackedSequence):
        yield f"{name}.data", value.data
    elif is_a(value, list, tuple):
        yield from ((f"{name}[{index}]", item) for index, item in enumerate(contents(value)) if is_dense(item))


def exchanged_in(change: Callable[[Tensor], Tensor], nest: Any) -> Any:
    """A nest of lists, tuples, named ones too, and plain dicts with its tensors exchanged."""
    if is_a(nest, Tensor):
        return change(nest)
    if type(nest) is dict:
        return {key: exchanged_in(change, value) for key, value in nest.items()}
    if type(nest) in (list, tuple):
        return type(nest)(exchanged_in(change, value) for value in nest)
    if is_a(nest, tuple) and hasattr(type(nest), "_make"):
        return type(nest)._make(exchanged_in(change, value) for value in contents(nest))
    return nest


@contextlib.contextmanager
def model_calls(named: list[tuple[str, nn.Module]], found: list[ModelCall]) -> Iterator[None]:
    """Adds the first call of each of these modules within the block."""

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not is_transforming() and not any(call.module is module for call in found):
                classes: dict[int, Tensor] = {}
                copy = partial(_copy, classes)
                found.append(ModelCall(name, module, exchanged_in(copy, args), exchanged_in(copy, kwargs), classes))

        return hook

    handles = [nn.Module.register_forward_pre_hook(module, keep(name), with_kwargs=True) for name, module in named]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copy(classes: dict[int, Tensor], tensor: Tensor) -> Tensor:
    copied = copy_of(tensor)
    if type(copied) is Tensor or not is_dense(copied) or (plain := numbers_of(copied)) is None:
        return copied
    classes[id(plain)] = tensor
    return plain.requires_grad_() if copied.requires_grad else plain


def one_exchanged(old: Tensor, new: Tensor, tensor: Tensor) -> Tensor:
    """What a call is given in place of a tensor, where one of them is exchanged for another."""
    return new if tensor is old else tensor


def some_exchanged(news: Mapping[int, Tensor], tensor: Tensor) -> Tensor:
    """The same where several are, by the ids of the old ones."""
    return news.get(id(tensor), tensor)
