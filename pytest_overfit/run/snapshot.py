"""What a run may change is put back bit for bit: modules, optimizers, and whatever else the user's callables reach.

Nothing is deep-copied that refuses it (weight norm's tensors do), and every object stays itself: an optimizer goes on
holding the parameters that it held, a scheduler the optimizer.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Refused, users_code
from pytest_overfit.run.attributes import CONTAINERS, all_modules, attributes_of, may_hold
from pytest_overfit.run.elements import copy_of, is_leaf, is_wrapper, write
from pytest_overfit.run.host_copies import HostCopies
from pytest_overfit.run.optim import follow_device
from pytest_overfit.run.reachable import PLAIN, counters, reachable, tensors
from pytest_overfit.untrusted.objects import attributes, contents, is_a

BARE = frozenset(vars(nn.Module()))  # what every module has
MOST_BYTES = 2**26  # of tensors that stand beside the model


class Snapshot:
    """The state of everything that was added, to be put back by ``restore``.

    Example:
        >>> snapshot = Snapshot()
        >>> snapshot.add(model), snapshot.add(optimizer)                  # doctest: +SKIP
        >>> snapshot.restore()                                            # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._known: dict[int, Any] = {}  # keeps the objects alive: ids must stay theirs
        self._restorers: list[Callable[[bool], None]] = []
        self._values: dict[int, Tensor] = {}
        self._copies = HostCopies()
        self._room = MOST_BYTES

    def add(self, thing: Any) -> None:
        """Takes the state of a module (with all below it), an optimizer, a generator or anything with a state dict."""
        if id(thing) in self._known:
            return
        if is_a(thing, nn.Module):
            self._add_module(thing)
            return
        self._known[id(thing)] = thing
        if is_a(thing, Optimizer):
            self._restorers.append(_optimizer_state(thing))
            beside = {name: value for name, value in vars(thing).items() if name not in ("state", "param_groups")}
            full = (value for value in beside.values() if type(value) not in CONTAINERS or value)
            self.add_reachable(*full)  # one that wraps another
            plain = {name: value for name, value in beside.items() if is_a(value, *PLAIN)}
            self._restorers.append(lambda keep_trained: None if keep_trained else vars(thing).update(plain))
        elif is_a(thing, torch.Generator):
            self._restorers.append(_later(thing.set_state, thing.get_state()))
        elif is_a(thing, np.random.Generator):
            self._restorers.append(
                _later(functools.partial(setattr, thing.bit_generator, "state"), thing.bit_generator.state)
            )
        elif is_a(thing, random.Random):
            self._restorers.append(_later(thing.setstate, thing.getstate()))
        else:
            with contextlib.suppress(Refused):  # a user's state_dict() may need what is not there yet
                self._restorers.append(_loaded(thing))

    def add_reachable(self, *roots: Any) -> None:
        """Takes the state of everything that callables and iterables hold: see ``reachable``; their counters too.

        Tensors without a gradient are taken up to ``MOST_BYTES`` in all, nearest first: beyond that they are data.
        """
        for thing in reachable(*roots):
            self.add(thing)
        for tensor in tensors(*roots):
            with torch._C.DisableTorchFunctionSubclass():
                if id(tensor) in self._known or not is_leaf(tensor) or tensor.is_inference():
                    continue
                size = 0 if tensor.requires_grad else tensor.numel() * tensor.element_size()
            if size <= self._room:
                self._room -= size
                self._known[id(tensor)] = tensor
                self._restorers.append(self._tensor_state(tensor))
        self._copies.sent()
        self._restorers += [_later(write, value) for write, value in counters(*roots)]

    def value(self, tensor: Tensor) -> Tensor | None:
        """A tensor's value at the time of the snapshot, on the host; None where it was not there or had none yet."""
        return self.value_of(id(tensor))

    def value_of(self, identity: int) -> Tensor | None:
        """The same of the tensor with this id."""
        self._copies.wait()
        return self._values.get(identity)

    def parameters(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Every parameter that was added, with its value then."""
        self._copies.wait()
        known = (self._known[key] for key in self._values)
        return ((thing, self._values[id(thing)]) for thing in known if isinstance(thing, nn.Parameter))

    def restore(self, *, keep_trained: bool = False) -> None:
        """Puts everything back; with ``keep_trained`` all but parameters, buffers, optimizers and schedules."""
        self._copies.wait()
        for restore in self._restorers:  # parameters are back on their device before an optimizer follows them
            restore(keep_trained)

    def _add_module(self, root: nn.Module) -> None:
        beside: list[Any] = []
        for module in all_modules(root):
            if id(module) in self._known:
                continue
            beside += [value for name, value in attributes(module).items() if name not in BARE]
            self._known[id(module)] = module
            tensors = [tensor for tensor in _own_tensors(module) if id(tensor) not in self._known]
            for tensor in tensors:
                self._known[id(tensor)] = tensor
                self._restorers.append(self._tensor_state(tensor))
            self._restorers.append(attributes_of(module))
        self.add_reachable(*beside)

    def _tensor_state(self, tensor: Tensor) -> Callable[[bool], None]:
        if is_lazy(tensor):
            kind, empty, wanted = type(tensor), tensor.data, tensor.requires_grad

            def make_lazy_again(keep_trained: bool) -> None:
                if not keep_trained and not is_lazy(tensor):
                    tensor.requires_grad_(wanted)
                    tensor.data, tensor.grad = empty, None
                    tensor.__class__ = kind

            return make_lazy_again
        device, requires_grad, leaf = tensor.device, tensor.requires_grad, is_leaf(tensor)
        value = _value_of(tensor, self._copies)
        if value is None:
            return lambda keep_trained: None
        self._values[id(tensor)] = value
        grad = tensor.grad if leaf else None
        grad_value = None if grad is None else grad.detach().clone()

        def restore(keep_trained: bool) -> None:
            if tensor.device != device:
                tensor.data = tensor.data.to(device)
            if is_lazy(tensor):  # it has become lazy again since
                tensor.materialize(value.shape, device, value.dtype)
            if not keep_trained:
                write(tensor, value)
            if leaf:
                if not tensor.is_leaf:  # a graph was written into it
                    tensor.detach_()
                tensor.requires_grad_(requires_grad)
                if grad is not None and grad_value is not None:
                    write(grad, grad_value)
                tensor.grad = grad

        return restore


@contextlib.contextmanager
def preserved(*things: Any, keep_trained: bool = False) -> Iterator[Snapshot]:
    """Puts modules, optimizers and the like back after the block, also after an error.

    Example:
        >>> with preserved(model, optimizer):                             # doctest: +SKIP
        ...     train(model, optimizer)
    """
    snapshot = Snapshot()
    for thing in things:
        snapshot.add(thing)
    try:
        yield snapshot
    finally:
        snapshot.restore(keep_trained=keep_trained)


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and tensors kept as plain attributes or in plain containers."""
    seen: set[int] = set()
    values = [value for value in attributes(module).values() if is_a(value, Tensor) or may_hold(value)]
    if is_a(module, torch.jit.ScriptModule):
        values += [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    while values:
        value = values.pop()
        if is_a(value, Tensor):
            if is_leaf(value) is not None:
                yield value
        elif (type(value) in CONTAINERS or is_a(value, tuple)) and id(value) not in seen:
            seen.add(id(value))
            values.extend(contents(value))


def _optimizer_state(optimizer: Optimizer) -> Callable[[bool], None]:
    groups = [(group, {**group, "params": list(group["params"])}) for group in optimizer.param_groups]
    held = {id(p): p for _, group in groups for p in group["params"]}
    state = _state_of(optimizer.state, held)
    settings = [{key: value for key, value in group.items() if key != "params"} for _, group in groups]
    settings = [_state_of(each, held) for each in settings]  # a tensor learning rate is changed in place

    def restore(keep_trained: bool) -> None:
        if keep_trained:
            follow_device(optimizer)
            return
        optimizer.state.clear()
        optimizer.state.update(_state_of(state, held))
        for (group, before), values in zip(groups, settings, strict=True):
            group.clear()
            group.update({**before, **values})
        optimizer.param_groups[:] = [group for group, _ in groups]

    return restore


def _state_of(state: Mapping[Any, Any], parameters: Mapping[int, Any]) -> dict[Any, Any]:
    """A copy of what an optimizer keeps; its parameters stay themselves."""
    memo = dict(parameters)

    def copied(value: Any) -> Any:
        if id(value) in parameters:
            return value
        if is_a(value, Tensor):
            return memo.setdefault(id(value), copy_of(value))
        if type(value) in (dict, OrderedDict, defaultdict):
            twin = value.copy()
            twin.update({key: copied(held) for key, held in value.items()})
            return twin
        if type(value) in (list, tuple, deque):
            return type(value)(copied(held) for held in value)
        try:
            with users_code():  # what a class of the user's remembers is known to itself alone
                return copy.deepcopy(value, memo)
        except Refused:
            return value

    return {key: copied(value) for key, value in state.items()}


def _loaded(thing: Any) -> Callable[[bool], None]:
    """The state dict of an object of the user's; what cannot be copied of it raises ``Refused``."""
    with users_code():
        saved = copy.deepcopy(thing.state_dict())

    def restore(keep_trained: bool) -> None:
        if not keep_trained:
            thing.load_state_dict(copy.deepcopy(saved))

    return restore


def _later(write: Callable[[Any], Any], state: Any) -> Callable[[bool], None]:
    return lambda keep_trained: write(state)


def _value_of(tensor: Tensor, copies: HostCopies) -> Tensor | None:
    """A copy on the host, maybe under way; None of a tensor whose class knows none and that no optimizer changes.

    Raises:
        OverfitError: it is a parameter, which could not be put back.
    """
    if not is_wrapper(tensor):
        with torch._C.DisableTorchFunctionSubclass():
            return copies.of(tensor.detach())
    try:
        with users_code():
            return tensor.detach().clone()
    except Refused as refused:
        if not is_a(tensor, nn.Parameter) and not tensor.requires_grad:
            return None
        raise OverfitError(
            f"a parameter of the class {type(tensor).__name__} cannot be copied ({refused})",
            where="model",
            allowed="parameters that can be put back after the run: detach() and clone() have to work",
            hint="freeze it and keep it as an attribute, or add both to its __torch_dispatch__",
        ) from refused
