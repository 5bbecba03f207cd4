"""One run beside its twins: how a twin is made, compared, and what is said of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.errors.asking import Questions, Unanswerable
from pytest_overfit.run.batch import named_tensors
from pytest_overfit.run.call_task import attributes_of, listened_to
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.elements import is_dense
from pytest_overfit.run.loop import Curves
from pytest_overfit.run.subject import Subject
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.twins.course import (
    UNCHANGED,
    Course,
    Exchange,
    Key,
    Tolerance,
    beyond,
    last_bits,
    replay,
    rounding,
    sizes,
    weak,
)

Outputs = dict[str, list[Tensor]]


@dataclass
class Side:
    """What a twin is compared with, and what it is made of.

    Args:
        reference: the first steps of the run itself.
        steps: so many are compared.
        last: the twin that was made last.
        at_save: what a checkpoint has to bring back, as it was in the run; empty where none was saved.
    """

    context: RunContext
    subject: Subject
    reference: Course
    curves: Curves
    questions: Questions
    steps: int
    at_save: Mapping[str, Any] = field(default_factory=dict)
    last: Course | None = None
    noise_of: dict[tuple[bool, torch.dtype | None], Mapping[Key, float]] = field(default_factory=dict)

    @cached_property
    def tolerance(self) -> Tolerance:
        """What another order of the same operations may leave in this model."""
        return rounding(self.context.task.model)

    def against(
        self, name: str, exchange: Exchange, exchanged: str, tolerance: Tolerance | None = None, *, still: bool = False
    ) -> TwinResult:
        """Makes a twin here, from the start of the run, and compares it with the run.

        Args:
            tolerance: what may differ; None: what another order of the same operations leaves.
            still: both are run in evaluation mode, over half as many steps: so they draw no random numbers.

        Raises:
            Unanswerable: the run draws random numbers in evaluation mode too, and the twin would draw others.
        """
        reference, steps = self.reference, min(self.steps, len(self.reference.losses))
        still = still or (exchange.redraws and reference.drawn)
        if (passes := exchange.passes + still) > 1:
            steps = max(2, steps // passes)
            reference = replace(reference, end={})  # which is further on
        if still:
            reference, exchange = replay(self.context, steps, stilled(UNCHANGED)), stilled(exchange)
            exchanged = f"{exchanged}; both in evaluation mode: training draws random numbers"
            if reference.drawn:
                raise Unanswerable("random numbers are drawn in evaluation mode too, and a twin draws others")
        twin = self.last = replay(self.context, steps, exchange)
        but = statistics_of(self.context.task.model) if exchange.twice else set()
        result = self.compared(name, reference, twin, exchanged, tolerance, still=still, but=but, cut=exchange.cut)
        return result if result.outcome == "agreed" else self._placed(result, exchange, still)

    def compared(
        self,
        name: str,
        reference: Course,
        twin: Course,
        exchanged: str,
        tolerance: Tolerance | None = None,
        *,
        still: bool = False,
        but: Set[str] = frozenset(),
        cut: bool = False,
        again: Callable[[], Course] | None = None,
    ) -> TwinResult:
        """What two courses say of a twin. One that differs is held against a run that nothing was exchanged in.

        Args:
            but: tensors that are not compared at the end; ``cut``: nor is what shrank with the batch.
            again: makes the run once more, as it was; None: here, with the last bit of every parameter off.

        Raises:
            Unanswerable: the run differs from itself as much as from its twin, and by more than is allowed.
        """
        tolerance, but = tolerance or self.tolerance, weak(reference) | but
        if cut:
            but |= {
                name for name, t in twin.end.items() if name in reference.end and t.shape != reference.end[name].shape
            }
        found = sizes(reference, twin, tolerance)
        if (over := beyond(found, tolerance, {}, but)) is not None:
            noise = self._noise(still, tolerance) if again is None else sizes(reference, again(), tolerance)
            over = beyond(found, tolerance, noise, but)
            said = replace(tolerance, end=tolerance.end and None)  # rounding grows: what it reaches is not judged
            if over is None and (own := beyond(noise, said, {}, but)) is not None:
                (kind, step, _), allowed = own
                what = f"its {kind} of step {step} differs by {noise[own[0]]:.2g} of its size, allowed {allowed:.2g}"
                how = "repeated as it is" if again is not None else "with the last bit of every parameter changed"
                raise Unanswerable(f"the run does not repeat itself: {how} {what}")
        told = replace(
            TwinResult(name, "agreed", exchanged), steps=len(twin.losses), curve=twin.curve, first=twin.first
        )
        if over is None:
            losses = [size for (kind, _, _), size in found.items() if kind == "loss"]
            return replace(told, size=max(losses, default=0.0), allowed=tolerance.loss)
        (kind, step, tensor), allowed = over
        what = {"loss": "the loss", "gradient": f"the gradient of {tensor}", "end": f"{tensor} at the end"}[kind]
        gradients = self._first_gradient(reference, twin, tolerance)
        size = found[over[0]]
        return replace(told, outcome="disagreed", step=step, what=what, size=size, allowed=allowed, gradients=gradients)

    def _noise(self, still: bool, tolerance: Tolerance) -> Mapping[Key, float]:
        """By how much the run differs from itself with the last bit of every parameter off."""
        key = (still, tolerance.kind)
        if key not in self.noise_of:
            exchange, steps = Exchange(applied=partial(last_bits, tolerance.kind)), len(self.reference.losses)
            steps = max(2, steps // 2) if still else steps
            base = replay(self.context, steps, stilled(UNCHANGED)) if still else self.reference
            again = replay(self.context, steps, stilled(exchange) if still else exchange)
            self.noise_of[key] = sizes(base, again, tolerance)
        return self.noise_of[key]

    def _first_gradient(self, reference: Course, twin: Course, tolerance: Tolerance) -> str:
        """The module of the first gradient that differs, in the order of the backward pass."""
        found = sizes(replace(reference, end={}), twin, tolerance)
        wrong = [
            (step, name)
            for (kind, step, name), size in found.items()
            if kind == "gradient" and tolerance.gradient is not None and not size <= tolerance.gradient
        ]
        first = [name for step, name in wrong if step == wrong[0][0]]
        return first[-1].rpartition(".")[0] or first[-1] if first else ""

    def _placed(self, result: TwinResult, exchange: Exchange, still: bool) -> TwinResult:
        """The same with the first module whose outputs differ at the step that disagrees."""
        with self.questions.asking(f"where the twin {result.name} differs"):
            plain, step = stilled(UNCHANGED) if still else UNCHANGED, result.step or 1
            one, other = (outputs_at(self.context, each, step) for each in (plain, exchange))
            return replace(result, outputs=first_apart(one, other, self.tolerance))
        return result


def outputs_at(context: RunContext, exchange: Exchange, step: int) -> tuple[Outputs, Outputs]:
    """What every module gave, and was fed, at a step (from 1) of a replay, in the order of the calls."""
    heard: Outputs = {}
    fed: Outputs = {}
    made = [0]

    def finish(done: int) -> None:
        made[0] = done

    @contextlib.contextmanager
    def listening(context: RunContext) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(modules_heard(context.task.model, heard, fed, lambda: made[0] == step - 1))
            if exchange.applied is not None:
                stack.enter_context(exchange.applied(context))
            yield

    replay(context, step, replace(exchange, applied=listening, finish=finish))
    return heard, fed


def first_apart(one: tuple[Outputs, Outputs], other: tuple[Outputs, Outputs], tolerance: Tolerance) -> str:
    """The first module that was fed the same and gave something else; else the first that gave something else."""
    (heard, fed), (also_heard, also_fed) = one, other
    wrong = [name for name, told in heard.items() if _differ(told, also_heard.get(name), tolerance)]
    at_home = (name for name in wrong if not _differ(fed.get(name, []), also_fed.get(name), tolerance))
    return next(at_home, wrong[0] if wrong else "")


@contextlib.contextmanager
def modules_heard(
    model: nn.Module,
    heard: Outputs | None = None,
    fed: Outputs | None = None,
    wanted: Callable[[], bool] = lambda: True,
) -> Iterator[Outputs]:
    """The first output of every call of every module, on the host, in the order of the calls."""
    kept: Outputs = {} if heard is None else heard

    def listener(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hear(module: nn.Module, args: Any, output: Any) -> None:
            if wanted():
                for into, said in ((kept, output), (fed, args)):
                    if into is not None:
                        into.setdefault(name, []).extend(_first_on_host(said))

        return hear

    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            stack.callback(module.register_forward_hook(listener(name or type(module).__name__)).remove)
        yield kept


def _first_on_host(said: Any) -> list[Tensor]:
    """The first tensor of numbers that a module gave, wherever it was."""
    for _, t in named_tensors(attributes_of(said)):
        if t.is_floating_point() and t.layout is torch.strided and not t.is_nested and not t.is_meta:
            return [host] if is_dense(host := t.detach().to("cpu", copy=True)) else []
    return []


def _differ(here: list[Tensor], there: list[Tensor] | None, tolerance: Tolerance) -> bool:
    """Whether two outputs of a module differ by more than rounding; not where their parts do not fit together."""
    if there is None:
        return False
    if len(there) > len(here) == 1 and all(t.dim() and t.shape[1:] == here[0].shape[1:] for t in there):
        there = [torch.cat(there)]
    if [t.shape for t in here] != [t.shape for t in there]:
        return False
    allowed = max(10 * tolerance.loss, 1e-12)
    return any(not gap_of(one, other) <= allowed for one, other in zip(here, there, strict=True))


def gap_of(one: Tensor, other: Tensor) -> float:
    """The norm of the difference of two tensors over that of the first; infinity where they are NaN elsewhere."""
    if torch.equal(one, other) or one.is_complex():
        return 0.0
    here, there = one.double().nan_to_num(), other.double().nan_to_num()
    if not torch.equal(one.isnan(), other.isnan()):
        return float("inf")
    return float((here - there).norm() / here.norm().clamp(min=1e-12))


def statistics_of(model: nn.Module) -> set[str]:
    """The names of the buffers of batch norms."""
    norms = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return {f"{name}.{buffer}".lstrip(".") for name, norm in norms for buffer, _ in norm.named_buffers(recurse=False)}


def stilled(exchange: Exchange) -> Exchange:
    """The same with every module in evaluation mode, whatever the step says: dropout draws nothing there."""

    @contextlib.contextmanager
    def applied(context: RunContext) -> Iterator[None]:
        def still(module: nn.Module, args: Any) -> None:
            module.training = False

        with contextlib.ExitStack() as stack:
            for _, root in listened_to(context.task.given):
                for module in root.modules():
                    stack.callback(module.register_forward_pre_hook(still, prepend=True).remove)
            if exchange.applied is not None:
                stack.enter_context(exchange.applied(context))
            yield

    return replace(exchange, applied=applied)
