"""What the first steps of a run showed under close watch, and how its parameters were updated; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from pytest_overfit.diagnose.operation import Op, Shape


@dataclass(frozen=True)
class Module:
    """The output of one module call: ``spread`` is its deviation over the samples relative to its size.

    ``spread`` is None where there is no axis of samples, ``fed`` the largest number that it was given. ``inside`` is
    False for a module that is no submodule of the model that was handed over.
    """

    name: str
    kind: str
    inside: bool
    training: bool
    parameters: int
    shape: Shape
    size: float
    low: float
    high: float
    spread: float | None
    input_spread: float | None
    finite: bool
    fed: float = 0.0


@dataclass(frozen=True)
class Clip:
    """Clipping: the norm of the gradients and what is allowed; ``whole``: of all of them, else the largest number."""

    norm: float
    most: float
    whole: bool = False


@dataclass(frozen=True)
class OptimizerStep:
    """A step of an optimizer that holds ``own`` tensors of the model's.

    ``living`` tensors have a gradient that is not zero, ``stale`` ones one that the step before has applied already;
    ``norm`` is that of all gradients, where they were clipped before.
    """

    own: int
    living: int
    stale: int
    closure: bool
    norm: float | None = None


CallKind = Literal[
    "zero_grad", "backward", "grad", "scale", "clip", "step", "scheduler", "init", "load", "new_module",
    "new_optimizer", "load_optimizer", "new_parameter", "write",
]  # fmt: skip
CallFact = Clip | OptimizerStep
C = TypeVar("C", bound=CallFact)


@dataclass(frozen=True)
class Event:
    """A call that moves a train step on, and what was measured of its kind."""

    kind: CallKind
    line: str = ""
    fact: CallFact | None = None


@dataclass(frozen=True)
class Cut:
    """What keeps the gradient from the parameters ``behind`` it: a call, ``torch.no_grad``, or a ``checkpoint``.

    ``straight_through``: its result is added to what it was taken from, ``x + (f(x) - x).detach()``.
    """

    by: str
    where: str
    behind: tuple[str, ...]
    straight_through: bool = False


@dataclass(frozen=True)
class Leaf:
    """A leaf of the graph that is neither the model's, the batch's nor in an optimizer that steps.

    ``name`` is that of its module, empty where none has it; ``within`` says that a module of the model reads it.
    """

    name: str
    shape: str
    within: bool = True
    training: bool = True


@dataclass(frozen=True)
class Step:
    """One training step under close watch.

    ``differentiated`` are the values that were, ``in_training`` says of each whether any part of the model was in
    training mode then, ``reported`` is the objective that came back. ``reached`` are the parameters in the graph of
    what was differentiated, ``foreign`` counts leaves of it that are neither of the model, of the batch, nor in an
    optimizer. ``connected`` says whether the reported objective lies in that graph. ``unread`` are parameters that no
    operation has read, ``cuts`` what stands between others and the loss, ``replaced`` those in whose place another
    tensor stands after the step. ``heard``: its calls could be watched. ``constants`` are summands of a loss that have
    no gradient, with their values, by the call that gave them and the line that adds them.
    """

    number: int
    reported: float
    events: tuple[Event, ...] = ()
    ops: tuple[Op, ...] = ()
    modules: tuple[Module, ...] = ()
    differentiated: tuple[float, ...] = ()
    in_training: tuple[bool, ...] = ()
    reached: tuple[str, ...] = ()
    foreign: int = 0
    foreign_in_optimizer: int = 0
    connected: bool | None = None
    heard: bool = True
    unread: tuple[str, ...] = ()
    cuts: tuple[Cut, ...] = ()
    replaced: tuple[str, ...] = ()
    constants: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupSettings:
    """The settings of a parameter group; those that its optimizer does not have are as torch has them by default."""

    weight_decay: float = 0.0
    eps: float = 1e-8
    momentum: float = 0.0
    dampening: float = 0.0
    maximize: bool = False
    beta1: float = 0.9
    beta2: float = 0.999


@dataclass(frozen=True)
class Group:
    """One parameter group: its settings as it first stepped, and its learning rate in the sampled steps."""

    optimizer: int
    kind: str
    index: int
    tensors: int
    names: tuple[str, ...]
    rates: tuple[float, ...]
    initial_rate: float
    settings: GroupSettings = field(default_factory=GroupSettings)
    scheduled: bool = False  # by a scheduler of torch's, which keeps the rate that was set
    default_rate: float = 0.0  # that its optimizer was made with
    steps_before: int = 0  # that its optimizer had made before the first of this run

    @property
    def where(self) -> str:
        which = f"optimizer {self.optimizer} " if self.optimizer else ""
        return f"{which}({self.kind}), group {self.index}"


@dataclass(frozen=True)
class ParameterUpdate:
    """A parameter over the sampled steps.

    ``ratios`` are norms of one update over the norm of the weight; ``overwritten`` counts the sampled steps before
    which it had changed by another hand than the optimizer's, of ``sampled``; ``back`` those in which it was its
    initial value again, ``undone`` those in which it was what it had been before the step; ``twice`` the steps in which
    a second optimizer applied the same gradient to it; ``rows_alike`` whether all its rows are equal; ``size`` its root
    mean square, ``gradient`` that of its first gradient (None: none came), ``still`` whether it ended as it began, bit
    for bit, ``grown`` its size at the end over that at the start.
    """

    name: str
    dtype: str
    shape: Shape
    size: float
    gradient: float | None
    ratios: tuple[float, ...] = ()
    sampled: int = 0
    overwritten: int = 0
    back: int = 0
    undone: int = 0
    twice: int = 0
    rows_alike: bool = False
    rows_alike_after: bool = False
    still: bool = False
    grown: float = 1.0


@dataclass(frozen=True)
class Counts:
    """Counted over the whole run: steps of optimizers, optimizers, steps that were looked at, states, states lost.

    ``renewed`` steps had another gradient than the step of the same optimizer before, ``again`` the very same one.
    """

    steps: int = 0
    optimizers: int = 0
    between: int = 0
    states: int = 0
    states_lost: int = 0
    renewed: int = 0
    again: int = 0
