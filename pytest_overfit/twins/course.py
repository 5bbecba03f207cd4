"""A few steps of a run as they can be compared: losses, the first gradients, and where parameters and buffers end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pytest_overfit.run.context import NEVER, RunContext
from pytest_overfit.run.elements import is_dense
from pytest_overfit.run.gradient_watch import GradientWatch, all_parts, state_of
from pytest_overfit.run.loop import fit
from pytest_overfit.run.update import Again, Around, Detached, Row, Update, has_closure, optimizers_heard

GRADIENTS = 2  # steps whose gradients are kept: with the end three copies of the parameters, on the host
WEAK = 1e-4  # of the whole gradient: a tensor's below it may be nothing but rounding, and where Adam takes it chance
NOISE = 10.0  # times what a change of the last bit comes to
Key = tuple[str, int, str]  # "loss", "gradient" or "end"; the step, from 1; the name of the tensor


@dataclass(frozen=True)
class Tolerance:
    """How much may differ, relative: losses (at the first step, and as much more at each later one), gradients, and
    parameters and buffers at the end, as a share of their way; None: not compared. ``kind`` is the type whose last bit
    the run may magnify; None: that of each parameter. ``floor`` is the share of the first loss below which none is its
    own measure.
    """

    loss: float
    gradient: float | None
    end: float | None
    kind: torch.dtype | None = None
    floor: float = 0.01

    def of(self, key: Key) -> float | None:
        """What is allowed of one quantity."""
        kind, step, _ = key
        return self.loss * step if kind == "loss" else self.gradient if kind == "gradient" else self.end


EXACT = Tolerance(0.0, 0.0, 0.0)
ROUNDING = {  # another order of the same operations, by the coarsest type among the parameters
    torch.float64: Tolerance(1e-9, 1e-7, 1e-5),
    torch.float32: Tolerance(1e-4, 2e-3, 5e-2),
    torch.bfloat16: Tolerance(2e-2, 2e-1, None),
    torch.float16: Tolerance(1e-2, 1e-1, None),
}


@dataclass
class Course:
    """What a few steps left.

    ``moved`` is how far each tensor of ``end`` went from the start of the run; ``drawn`` says that the first step drew
    random numbers; ``first`` is the step (from 1) that ``losses`` begins with.
    """

    losses: list[Any] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    end: dict[str, Tensor] = field(default_factory=dict)
    moved: dict[str, float] = field(default_factory=dict)
    drawn: bool = False
    first: int = 1

    @property
    def curve(self) -> tuple[float, ...]:
        """The losses as numbers."""
        return tuple(float(loss) for loss in self.losses)


@dataclass(frozen=True)
class Exchange:
    """One thing of the execution that a twin does otherwise.

    Args:
        applied: brings it about within the block; the start comes back afterwards whatever it does.
        update: makes another update; None: the run's own.
        task: makes another task; None: the run's own.
        redraws: random numbers come out otherwise: a run that draws any is compared in evaluation mode.
        cut: the batch comes in parts; ``passes``: forward passes of a step, over as many fewer of which it is compared.
        twice: a forward pass may be made again: running statistics of batch norms move further, and are not compared.
        finish: called after every step with its number, from 1.
        loss: what the latest step's loss came to, where the step does not say so itself.
    """

    applied: Callable[[RunContext], contextlib.AbstractContextManager[Any]] | None = None
    update: Callable[[RunContext, GradientWatch], Update] | None = None
    task: Callable[[RunContext], Any] | None = None
    redraws: bool = False
    cut: bool = False
    passes: int = 1
    twice: bool = False
    finish: Callable[[int], None] = lambda step: None
    loss: Callable[[], Any] | None = None


UNCHANGED = Exchange()


class Recorder(Around):
    """An update whose first steps are written down; ``stops``: it makes no others."""

    def __init__(
        self, inner: Update, context: RunContext, steps: int, *, stops: bool = False, exchange: Exchange = UNCHANGED
    ) -> None:
        super().__init__(inner)
        self.context, self.steps, self.stops, self.exchange = context, steps, stops, exchange
        self.names = {id(p): name for name, p in context.task.model.named_parameters()}
        self.course = Course()
        self.made = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            if not has_closure(args, kwargs):
                self._hear(optimizer)

        def after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            if has_closure(args, kwargs):
                self._hear(optimizer)

        with self.inner.running(), optimizers_heard(before, after):
            yield
            if self.made < self.steps:
                self._end()

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        if self.made >= self.steps:
            if self.stops:
                raise Detached
            return self.inner(step, look=look, observe=observe)
        if self.made < GRADIENTS:
            self.course.gradients.append({})
        before = torch.get_rng_state() if not self.made else None
        row = self.inner(step, look=look, observe=observe)
        loss = row.values[0] if self.exchange.loss is None else self.exchange.loss()
        self.course.losses.append(loss.detach().clone() if isinstance(loss, Tensor) else loss)
        if before is not None:
            self.course.drawn = not torch.equal(before, torch.get_rng_state())
        self.made += 1
        if self.made == self.steps:
            self._end()
        self.exchange.finish(self.made)
        return row

    def _hear(self, optimizer: Optimizer) -> None:
        if self.made >= self.steps or self.made >= GRADIENTS:
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = self.names.get(id(parameter))
                if name is not None and parameter.grad is not None:
                    self.course.gradients[-1].setdefault(name, _on_host(parameter.grad))

    def _end(self) -> None:
        for name, tensor in state_of(self.context.task.model):
            here = _on_host(tensor)
            start = self.context.start.value(tensor)
            self.course.end[name] = here
            self.course.moved[name] = _norm(here) if start is None else _norm(_apart(here, _on_host(start)))


def replay(context: RunContext, steps: int, exchange: Exchange = UNCHANGED) -> Course:
    """The run's first steps again, from its start, with one thing exchanged; the start comes back.

    Raises:
        Refused: the user's code does not take the exchange.
    """
    with context.at_start(), contextlib.ExitStack() as stack:
        if exchange.applied is not None:
            stack.enter_context(exchange.applied(context))
        return go_on(context, steps, exchange)


def go_on(context: RunContext, steps: int, exchange: Exchange = UNCHANGED, *, done: int = 0) -> Course:
    """Some steps from whatever state there is now; ``done``: so many of the run's are behind it."""
    if exchange.task is not None:
        context = context.on(exchange.task(context))
    watch, planned = context.new_watch(), context.plan.max_steps
    update = context.update(context.task, watch) if exchange.update is None else exchange.update(context, watch)
    recorder = Recorder(Again(update), context, steps, stops=True, exchange=exchange)
    recorder.course.first = done + 1
    moved_on = {
        name: lambda progress, schedule=schedule: schedule((round(progress * planned) + done) / planned)
        for name, schedule in context.plan.schedules.items()
    }
    plan = replace(context.plan, limits={}, schedules=moved_on, strict_terms=False, max_seconds=None)
    plan = replace(plan, val_every=NEVER, gradient_every=NEVER)
    curves = fit(context.task, recorder, plan, watch=watch)
    if curves.stop == "interrupted":
        raise KeyboardInterrupt
    return recorder.course


def rounding(model: nn.Module) -> Tolerance:
    """What another order of the same operations may leave, for the coarsest type among the parameters."""
    kinds = {p.dtype for p in model.parameters() if p.dtype in ROUNDING}
    order = (torch.float16, torch.bfloat16, torch.float32)
    return ROUNDING[next((kind for kind in order if kind in kinds), torch.float64 if kinds else torch.float32)]


def last_bits(kind: torch.dtype | None, context: RunContext) -> contextlib.AbstractContextManager[None]:
    """Every parameter a bit of its last place off: what that comes to, no other execution can be asked to undercut.

    Args:
        kind: the type whose last place it is; None: the parameter's own.
    """

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in context.task.model.parameters():
                if is_dense(parameter) and parameter.is_floating_point():
                    signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
                    parameter.mul_(1 + torch.finfo(kind or parameter.dtype).eps * signs.to(parameter))
        yield

    return block()


def sizes(one: Course, other: Course, tolerance: Tolerance) -> dict[Key, float]:
    """By how much every quantity of two courses differs, relative, in the order of the steps; 0: not one bit.

    Where rounding is allowed, elements whose gradient may be nothing else are not compared at the end.
    """
    found: dict[Key, float] = {}
    skip = other.first - one.first
    curve, again = one.curve[skip:], other.curve
    floor = tolerance.floor * max((abs(loss) for loss in one.curve[:1] if math.isfinite(loss)), default=0.0)
    for index in range(min(len(curve), len(again))):
        step = index + other.first
        found["loss", step, ""] = _relative(curve[index], again[index], floor)
        if step <= len(one.gradients) and index < len(other.gradients):
            here, there = one.gradients[step - 1], other.gradients[index]
            whole = math.hypot(*map(_norm, here.values()))
            for name in dict.fromkeys([*here, *there]):
                found["gradient", step, name] = _gap(here.get(name), there.get(name), 1e-3 * whole)
    last = other.first + min(len(curve), len(again)) - 1
    first = one.gradients[0] if one.gradients and tolerance.end else {}
    for name, tensor in one.end.items():
        also, slope = other.end.get(name), first.get(name)
        if slope is not None and also is not None and slope.shape == tensor.shape == also.shape:
            strong = slope.abs() >= WEAK * _norm(slope) / max(1, slope.numel()) ** 0.5
            tensor, also = tensor[strong], also[strong]
        found["end", last, name] = _gap(tensor, also, 0.0, along=one.moved.get(name))
    return found


def weak(course: Course) -> set[str]:
    """Parameters whose gradient may be nothing but rounding."""
    if not course.gradients:
        return set()
    norms = {name: _norm(gradient) for name, gradient in course.gradients[0].items()}
    return {name for name, norm in norms.items() if norm < WEAK * math.hypot(*norms.values())}


def beyond(
    found: Mapping[Key, float], tolerance: Tolerance, noise: Mapping[Key, float], but: set[str]
) -> tuple[Key, float] | None:
    """The first quantity that differs by more than is allowed, and what is."""
    for key, size in found.items():
        allowed = tolerance.of(key)
        if allowed is None or (allowed and key[0] == "end" and key[2] in but):
            continue
        allowed = max(allowed, NOISE * noise.get(key, 0.0))
        if not size <= allowed:
            return key, allowed
    return None


def _relative(here: float, there: float, floor: float) -> float:
    if here == there or (math.isnan(here) and math.isnan(there)):
        return 0.0
    size = abs(here - there) / max(abs(here), floor, 1e-30)
    return size if math.isfinite(size) else math.inf


def _gap(here: Tensor | None, there: Tensor | None, floor: float, along: float | None = None) -> float:
    """The norm of a difference, over that of ``here`` or of its way; a missing tensor is one of zeros."""
    if here is None or there is None:
        given = here if there is None else there
        return 0.0 if given is None or not _norm(given) else math.inf
    if here.shape != there.shape:
        return math.inf
    if torch.equal(here, there):
        return 0.0
    size = _norm(_apart(here, there))
    if math.isnan(size):
        return 0.0 if torch.equal(here.isnan(), there.isnan()) and not here.isnan().logical_not().any() else math.inf
    scale = max(_norm(here) if along is None else along, floor)
    return size / scale if scale else math.inf


def _apart(here: Tensor, there: Tensor) -> Tensor:
    return here.double() - there.double() if not here.is_complex() else here - there


def _norm(tensor: Tensor) -> float:
    kind = torch.complex128 if tensor.is_complex() else torch.float64
    return float(torch.linalg.vector_norm(tensor.to(kind)))


def _on_host(tensor: Tensor) -> Tensor:
    held = all_parts(tensor.detach())
    return (held.to_dense() if held.layout is not torch.strided else held).to("cpu", copy=True)
