"""What the graph of a step holds: the parameters that are read, what cuts them off, and leaves that are nobody's."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor, nn

from pytest_overfit.diagnose.gradients_off import off_around
from pytest_overfit.diagnose.operation import LOSS
from pytest_overfit.diagnose.questions.operation_names import LOSSES
from pytest_overfit.diagnose.questions.step_calls import users_line
from pytest_overfit.diagnose.questions.tensors import graph_nodes, made_by, tensors_in
from pytest_overfit.diagnose.step_trace import Cut, Leaf
from pytest_overfit.run.elements import numbers_of
from pytest_overfit.run.stack_lines import is_library

CUTTING = {"detach": ".detach()", "detach_": ".detach_()", "data": ".data", "item": ".item()", "numpy": ".numpy()",
           "tolist": ".tolist()", "argmax": "argmax()", "multinomial": "multinomial()", "one_hot": "one_hot()",
           "long": ".long()", "int": ".int()", "gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "==",
           "__gt__": ">", "__lt__": "<", "__ge__": ">=", "__le__": "<=", "__eq__": "==", "tensor": "tensor()",
           "as_tensor": "as_tensor()", "from_numpy": "from_numpy()", "new_tensor": "new_tensor()",
           "__float__": "float()"}  # fmt: skip
MOST_CUTS = 200
LEAVING_TORCH, NUMPY = ("numpy", "__array__", "tolist"), "numpy"
CHECKPOINTS = ("torch.utils.checkpoint", "fairscale.nn.checkpoint", "deepspeed.runtime.activation_checkpointing")


@dataclass
class _Cutting:
    """A call that takes numbers out of the graph, while the step that made it still lives."""

    by: str
    where: str
    source: Tensor
    out: Any
    at: int = 0  # the instruction: a line may cut two things
    straight_through: bool = False


@dataclass
class _Found:
    """A leaf that is neither the model's nor the batch's, over the whole run."""

    tensor: weakref.ref[Tensor]
    leaf: Leaf
    size: float


class StepGraph:
    """Watches what becomes of the model's parameters between being read and being differentiated.

    Args:
        model: its parameters are the ones that are meant to learn; its buffers are nobody else's either.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parameters = {id(p): name for name, p in model.named_parameters()}
        self.buffers = {id(buffer) for buffer in model.buffers()}
        self.held: set[int] = set()  # by any optimizer that has stepped so far
        self.taught: set[int] = set()  # what one was handed a gradient for that is not zero
        self.found: dict[int, _Found] = {}
        self.owners: dict[int, tuple[str, bool, bool]] = {}  # of others' parameters: name, within the model, training
        self.read_within: dict[int, bool] = {}  # leaves that are nobody's parameters: whether the model reads them
        self.estimates = False  # a straight-through estimator, or a cut between rounds, seen within the model
        self.chooses = False  # the place of the largest or the smallest, asked within the model
        self.passes_through = False  # a straight-through estimator, seen anywhere
        self.asked: set[int] = set()  # tensors that a derivative was taken by: inputs, whoever keeps them
        self.clear()

    def clear(self) -> None:
        """A new step begins."""
        self.read: set[int] = set()
        self.blind: dict[int, tuple[str, str]] = {}
        self.cuttings: list[_Cutting] = []
        self.nodes: set[Any] = set()
        self.reached: set[int] = set()
        self.foreign: set[int] = set()
        self.foreign_held = 0
        self.constants: dict[int, tuple[Tensor, str]] = {}  # what a loss, or a derivative, gave without a gradient
        self.summands: dict[tuple[str, str], float] = {}  # those that were added to what has one, with the line

    def entered(self, module: nn.Module, *, within: bool) -> None:
        """A module that is no part of the model runs: beside it, or within one of its modules."""
        if not within or module._parameters:
            for name, p in module.named_parameters():
                self.owners.setdefault(id(p), (f"{type(module).__name__}.{name}", within, module.training))

    def called(self, name: str, frame: FrameType, given: Iterable[Any], out: Any, *, kept: bool, region: str) -> None:
        """An operation has run; ``kept`` says whether gradients were on."""
        if name in LEAVING_TORCH:
            self._left_torch(given)
        tensors = [t for t in tensors_in(list(given), depth=2) if t.requires_grad]
        if kept and region == LOSS and (self.constants or name in (*LOSSES, "grad")):
            self._constant(name, frame, list(given), out)
        if not tensors:
            return
        self.chooses |= name in ("argmax", "argmin") and region != LOSS
        for t in tensors:
            if t.is_leaf and id(t) not in self.parameters:
                self.read_within.setdefault(id(t), region != LOSS)
        made = list(tensors_in(out, depth=2)) if not isinstance(out, Tensor) else [out]
        own = [id(t) for t in tensors if id(t) in self.parameters]
        if not kept:
            if own and any(t.is_floating_point() for t in made) and not name.endswith("_like") and name[:4] != "new_":
                self.blind.update((i, without_gradients(frame)) for i in own if i not in self.blind)
            elif region != LOSS and len(self.cuttings) < MOST_CUTS:
                by, line = without_gradients(frame)
                self.cuttings += [_Cutting(by, f"module {region}, {line}".rstrip(", "), t, out) for t in tensors]
            return
        if any(t.requires_grad for t in made):
            self.read.update(own)
            # Run without gradients and then with them: only the last round of an equilibrium is differentiated.
            self.estimates |= region != LOSS and not self.blind.keys().isdisjoint(own)
            if name in ("add", "__add__", "__radd__"):
                self._passed_through(tensors, given)
        elif name in CUTTING and len(self.cuttings) < MOST_CUTS:
            line = users_line(frame)
            place = region if region == LOSS else f"module {region}"
            where = f"{place}, {line}" if line else place
            # What one line cuts time and again lies between the rounds of a refinement.
            at = (CUTTING[name], where, frame.f_lasti)
            again = any((each.by, each.where, each.at) == at for each in self.cuttings)
            self.estimates |= again and region != LOSS
            self.cuttings += [_Cutting(CUTTING[name], where, t, out, frame.f_lasti) for t in tensors]

    def _constant(self, name: str, frame: FrameType, given: list[Any], out: Any) -> None:
        """A loss of what needs no gradient, or a derivative without a graph, and what is made of it."""
        made = [t for t in tensors_in([out], depth=2) if t.is_floating_point()]
        known = [self.constants[id(t)][1] for t in tensors_in(given, depth=2) if id(t) in self.constants]
        if not any(t.requires_grad for t in made):
            if known or name in LOSSES or len(given) > 1:  # else it is the attribute of a tensor
                self.constants.update({id(t): (t, known[0] if known else f"{name}()") for t in made})
        elif known and made[0].dim() == 0 and "add" in name:
            value = next(t for t in tensors_in(given, depth=2) if id(t) in self.constants)
            self.summands.setdefault((known[0], users_line(frame)), float(value) if value.numel() == 1 else math.nan)

    def _left_torch(self, given: Iterable[Any]) -> None:
        """``x.detach().numpy()``: without the first one the second raises."""
        for cutting in self.cuttings:
            if any(cutting.out is thing for thing in given):
                cutting.by = NUMPY

    def _passed_through(self, tensors: list[Tensor], given: Iterable[Any]) -> None:
        """``x + (f(x) - x).detach()``: the value of f(x) with the gradient of x."""
        for cutting in self.cuttings:
            node = made_by(cutting.source)
            if not any(cutting.out is thing for thing in given) or node is None or "Sub" not in node.name():
                continue
            taken = node.next_functions[-1][0]
            cutting.straight_through |= any(_node_of(t) is taken for t in tensors)
            self.passes_through |= cutting.straight_through
            self.estimates |= cutting.straight_through

    def differentiated(self, roots: list[Tensor], batch: set[int]) -> None:
        """A backward pass begins from ``roots``."""
        nodes, self.nodes = self.nodes, self.nodes | {node for root in roots for node in graph_nodes(root)}
        for node in self.nodes - nodes:
            variable = getattr(node, "variable", None)
            if variable is None or id(variable) in batch or id(variable) in self.buffers:
                continue
            if id(variable) in self.parameters:
                self.reached.add(id(variable))
            elif id(variable) in self.held:
                self.foreign_held += 1
            else:
                self.foreign.add(id(variable))
                if id(variable) not in self.found:
                    self.found[id(variable)] = _Found(weakref.ref(variable), self._leaf(variable), _sum(variable))

    def _leaf(self, variable: Tensor) -> Leaf:
        shape = "x".join(map(str, variable.shape)) or "scalar"
        unnamed = ("", self.read_within.get(id(variable), True), True)
        name, within, training = self.owners.get(id(variable), unnamed)
        return Leaf(name, shape, within=within, training=training)

    def leaves(self, model: nn.Module) -> tuple[Leaf, ...]:
        """Those found so far that still live, that no optimizer holds and no other hand has moved.

        One that has become the model's parameter since was put there by the forward pass.
        """
        now = {id(p) for p in model.parameters()}
        order = {i: place for place, i in enumerate(self.owners)}  # of modules, as they name them
        ordered = sorted(self.found.items(), key=lambda each: order.get(each[0], len(order)))
        alive = [(found, tensor) for _, found in ordered if (tensor := found.tensor()) is not None]
        return tuple(
            found.leaf
            for found, tensor in alive
            if id(tensor) not in self.held | now | self.asked and _sum(tensor) == found.size and tensor.requires_grad
        )

    def cuts(self, behind: set[int] | None = None) -> tuple[Cut, ...]:
        """What keeps gradients from parameters of the model, once the step is over; the most telling first.

        Args:
            behind: the ids of those parameters; None: all that get none.
        """
        missing = set(self.parameters) - self.reached if behind is None else behind
        missing = missing & {id(p) for p in self.model.parameters() if p.requires_grad}
        if not missing:
            return ()
        found = []
        for cutting in reversed(self.cuttings):  # of those that cut the same off the last one is in the way of all
            leaves = {id(getattr(node, "variable", None)) for node in graph_nodes(cutting.source)}
            held = missing & (leaves | {id(cutting.source)})
            if held:
                found.append(Cut(cutting.by, cutting.where, self._names(held), cutting.straight_through))
        places: dict[tuple[str, str], set[int]] = {}
        for i in missing & self.blind.keys():
            places.setdefault(self.blind[i], set()).add(i)
        found += [Cut(by, line, self._names(behind)) for (by, line), behind in places.items()]
        merged: dict[tuple[str, str, bool], Cut] = {}
        for cut in found:
            key = (cut.by, cut.where, cut.straight_through)
            names = dict.fromkeys((*(merged[key].behind if key in merged else ()), *cut.behind))
            merged[key] = Cut(cut.by, cut.where, tuple(names), cut.straight_through)
        hard = (".detach()", ".data", "torch.no_grad", "checkpoint")
        order = {
            cut: (cut.by == ".item()", not cut.straight_through, cut.by not in hard, -len(cut.behind))
            for cut in merged.values()
        }
        return tuple(sorted(order, key=order.__getitem__))

    def unread(self) -> tuple[str, ...]:
        """The model's parameters that no operation of the step has read."""
        return self._names(self.parameters.keys() - self.read - self.blind.keys() - self.reached)

    def _names(self, ids: Iterable[int]) -> tuple[str, ...]:
        wanted = set(ids)
        return tuple(name for i, name in self.parameters.items() if i in wanted)


def _node_of(tensor: Tensor) -> Any:
    """The node that a gradient of a tensor goes to."""
    node = made_by(tensor)
    leaf = node is None and tensor.requires_grad and tensor._base is None
    return made_by(tensor.view_as(tensor)).next_functions[0][0] if leaf else node


def _sum(tensor: Tensor) -> float:
    numbers = numbers_of(tensor.detach())
    return 0.0 if numbers is None else float(numbers.double().abs().sum())


def without_gradients(frame: FrameType | None) -> tuple[str, str]:
    """What has switched gradients off around a frame, and the user's line that does it, or that is in it."""
    line, by, off = users_line(frame), "torch.no_grad", ""
    for each in _frames(frame):
        if each.f_globals.get("__name__", "").startswith(CHECKPOINTS):
            return "checkpoint", users_line(each)
        path = each.f_code.co_filename
        if not off and line and not is_library(path):
            number = off_around(path, each.f_lineno, each.f_code.co_firstlineno)
            off = f"{Path(path).name}:{number}" if number else ""
    return by, off or line


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
