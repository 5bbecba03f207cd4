"""One training step, in three ways: ours, ours with a closure (LBFGS), and the user's own.

Each leaves a ``Row``: what the step computed, still on the device where reading it would be a host-device sync.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pytest_overfit.errors.asking import Unanswerable, users_code
from pytest_overfit.run.call_task import count_positional
from pytest_overfit.run.gradient_watch import GradientWatch, named_outputs
from pytest_overfit.run.infinities import Infinities
from pytest_overfit.run.optim import Freezing, GradientClipper
from pytest_overfit.run.task import Heard, Task, Terms, scalar_terms

ZERO_GRAD = Optimizer.zero_grad


class Detached(Unanswerable):
    """The objective has no graph behind it: there is nothing to differentiate."""

    def __init__(self) -> None:
        super().__init__("the objective has no gradient")


@dataclass(slots=True)
class Row:
    """The numbers of one step.

    Args:
        terms: names of the loss terms.
        outputs: names of the predictions.
        values: one number per term; where nothing has been read yet, a tensor on the device with one more per
            prediction: finite where that is.
        norms: gradient norms per watched parameter (see ``GradientWatch``), None where none were taken.
        moved: how far the step moved every watched parameter, None where that was not measured.
        looked: the numbers were read before the update; then ``bad`` is the first prediction that was not finite, and
            ``broken`` says that something was not: the update was not made.
    """

    terms: list[str]
    outputs: list[str]
    values: list[float] | Tensor
    norms: Tensor | None
    moved: Tensor | None = None
    hyper: dict[str, float] = field(default_factory=dict)
    looked: bool = False
    bad: str | None = None
    broken: bool = False


class Update(Protocol):
    """What the loop calls once per step."""

    optimizers: list[Optimizer]

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        """Makes one step. ``look``: read the numbers before the update; ``observe``: take gradient norms."""

    def running(self) -> contextlib.AbstractContextManager[Any]:
        """Holds whatever listens while the run goes."""


class Around:
    """An update around another one: a ``__call__`` of its own, optimizers and context of the inner one."""

    def __init__(self, inner: Update) -> None:
        self.inner = inner

    @property
    def optimizers(self) -> list[Optimizer]:
        return self.inner.optimizers

    @optimizers.setter
    def optimizers(self, value: list[Optimizer]) -> None:
        self.inner.optimizers = value

    def running(self) -> contextlib.AbstractContextManager[Any]:
        return self.inner.running()


class Again(Around):
    """The update of a run that is repeated by a question of ours: what it raises is ``Refused``."""

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        with users_code():
            return self.inner(step, look=look, observe=observe)


class PlainUpdate:
    """Zero, forward, backward, clip, step; several optimizers step one after the other."""

    def __init__(
        self, task: Task, optimizers: list[Optimizer], watch: GradientWatch, *, clip: GradientClipper, frozen: Freezing
    ) -> None:
        self.task, self.optimizers, self.watch, self.clip, self.frozen = task, optimizers, watch, clip, frozen
        self.scaler = task.precision.scaler(task.device)
        self.scaled = self.scaler.is_enabled()
        self.closed = [optimizer for optimizer in optimizers if wants_closure(optimizer)]

    def running(self) -> contextlib.AbstractContextManager[Any]:
        into_training(self.task.model)
        return self.task.listening()

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        if not self.task.model.training:
            self.task.model.train()
        if self.frozen.modules:
            self.frozen.hold()
        if self.closed:
            return self._step_with_closure(observe)
        for optimizer in self.optimizers:
            drop_gradients(optimizer)
        predictions, terms = self.task.forward(self.task.batch)
        self._backward(terms)
        if self.scaled:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
        norms = self.watch.observe() if observe else None
        if self.scaled and norms is not None:  # the scaler skips a step that overflows and lowers its scale: no failure
            norms = norms.nan_to_num(0.0, 0.0, 0.0)
        row = make_row(terms, predictions, norms, self.watch.infinities, look=look)
        if row.broken:
            return row
        self.clip()
        for optimizer in self.optimizers:
            if self.scaled:
                self.scaler.step(optimizer)
            else:
                optimizer.step()
        if self.scaled:
            self.scaler.update()
        return row

    def _step_with_closure(self, observe: bool) -> Row:
        first: list[tuple[Any, Terms]] = []

        def closure() -> Tensor:
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            predictions, terms = self.task.forward(self.task.batch)
            self._backward(terms)
            self.clip()
            if not first:  # the loss before the update, as in every other step
                first.append((predictions, {name: value.detach() for name, value in terms.items()}))
            return terms["objective"]

        for optimizer in self.optimizers:
            optimizer.step(closure)  # type: ignore[arg-type]
        predictions, terms = first[0]
        norms = self.watch.observe() if observe else None
        return make_row(terms, predictions, norms, self.watch.infinities, look=True)

    def _backward(self, terms: Terms) -> None:
        if not terms["objective"].requires_grad:
            raise Detached
        objective = terms["objective"]
        scaled = self.scaled and not self.closed  # a closure is asked several times in one step
        (self.scaler.scale(objective) if scaled else objective).backward()  # type: ignore[no-untyped-call]


class OwnUpdate:
    """The user's train step. Gradients are observed when an optimizer steps, whoever holds that optimizer.

    Args:
        step: called with the batch (see ``own_step``).
        found: told of every optimizer that steps, before its first step.
    """

    def __init__(
        self,
        task: Task,
        step: Callable[[Any], Any],
        optimizers: list[Optimizer],
        watch: GradientWatch,
        found: Callable[[Optimizer], None],
        *,
        frozen: Freezing,
    ) -> None:
        self.task, self.step, self.watch, self.found, self.frozen = task, step, watch, found, frozen
        self.optimizers = list(optimizers)
        self.stepped: set[int] = set()
        self.norms: Tensor | None = None
        self.observe = True
        self.source: Tensor | None = None  # the objective of the last step, as it came back

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        into_training(self.task.model)
        with self.task.listening(), optimizers_heard(self._before, self._after):
            yield

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        self.task.heard.clear()
        if self.frozen.modules:
            self.frozen.hold()
        self.norms, self.observe = None, observe
        terms = scalar_terms(self.step(self.task.batch))
        self.source = terms["objective"]
        return make_row(terms, self.task.heard, self.norms, self.watch.infinities, look=look)

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if id(optimizer) not in self.stepped:
            if not any(optimizer is known for known in self.optimizers):
                self.optimizers.append(optimizer)
            self.found(optimizer)
            self.stepped.add(id(optimizer))
        if self.observe and not has_closure(args, kwargs):
            self._observe(optimizer)

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self.observe and has_closure(args, kwargs):
            self._observe(optimizer)

    def _observe(self, optimizer: Optimizer) -> None:
        norms = self.watch.observe(optimizer)
        self.norms = norms if self.norms is None else torch.maximum(self.norms, norms)


def drop_gradients(optimizer: Optimizer) -> None:
    """``optimizer.zero_grad()``; where that is torch's own, without the profiler's record of it."""
    if type(optimizer).zero_grad is not ZERO_GRAD or "zero_grad" in vars(optimizer):
        optimizer.zero_grad(set_to_none=True)
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def into_training(model: nn.Module) -> None:
    """``model.train()``, as before every training loop; parts that the user has put into evaluation mode stay there."""
    kept = [module for module in model.modules() if not module.training] if model.training else []
    model.train()
    for module in kept:
        module.training = False


StepHook = Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], None]


@contextlib.contextmanager
def optimizers_heard(before: StepHook, after: StepHook | None = None) -> Iterator[None]:
    """Calls ``before`` and ``after`` around every step of every optimizer of this process, for the block."""
    handles = [register_optimizer_step_pre_hook(before)]
    if after is not None:
        handles.append(register_optimizer_step_post_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def own_step(step: Callable[..., Any], model: Any, optimizer: Any) -> Callable[[Any], Any]:
    """The user's train step as a call with a batch: it gets as many of (model, batch, optimizer) as it takes."""
    count = count_positional(step, 3)
    if count == 1:
        return step
    return lambda batch: step(*(model, batch, optimizer)[:count])


def make_row(terms: Terms, predictions: Any, norms: Tensor | None, meant: Infinities, *, look: bool) -> Row:
    """The numbers of a step: read at once where that is asked for, else left on the device."""
    outputs = predictions if isinstance(predictions, Heard) else named_outputs(predictions)
    with torch._C.DisableTorchFunctionSubclass():  # a prediction may be of a class of its own
        return _row_of(terms, outputs, norms, meant, look=look)


def _row_of(
    terms: Terms, outputs: list[tuple[str, Tensor]], norms: Tensor | None, meant: Infinities, *, look: bool
) -> Row:
    if look:
        names, values, bad = list(terms), [], None
        for value in terms.values():  # loops as they are: generators are half of what a step of ours costs more
            values.append(value.item())
        for name, tensor in outputs:
            if not meant.is_sound(name, tensor):
                bad = name
                break
        sound = norms is None or math.isfinite(norms.sum().item()) or bool(torch.isfinite(norms).all())
        finite = math.isfinite(sum(values)) or all(
            math.isfinite(value) or meant.excepts(name) for name, value in zip(names, values, strict=True)
        )
        broken = not (finite and sound and bad is None)
        return Row(names, [], values, norms, looked=True, bad=bad, broken=broken)
    device = next(iter(terms.values())).device if norms is None else norms.device
    with torch.no_grad():
        numbers = [value.to(device, torch.float32) for value in (*terms.values(), *meant.states(outputs))]
        return Row(list(terms), [name for name, _ in outputs], torch.stack(numbers), norms)


def wants_closure(optimizer: Optimizer) -> bool:
    """Whether ``step()`` cannot do without a closure, as that of LBFGS."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def has_closure(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether an optimizer's step computes its gradients itself: they are there after it, not before."""
    return kwargs.get("closure") is not None or any(callable(argument) for argument in args)
