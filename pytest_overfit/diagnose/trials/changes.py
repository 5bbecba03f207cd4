"""The run again, from the same start and with the same batch, with one thing changed.

What is trainable is changed together with the step that trains it: our own.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from pytest_overfit.diagnose.questions.step_loss import loss_of
from pytest_overfit.diagnose.trial import Attempt, Trial
from pytest_overfit.errors.asking import Unanswerable
from pytest_overfit.run.batch import map_tensors, named_tensors
from pytest_overfit.run.context import NEVER, RunContext
from pytest_overfit.run.gradient_watch import GradientWatch
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.optim import Freezing, GradientClipper
from pytest_overfit.run.update import Again, Around, Detached, PlainUpdate, Row, Update, optimizers_heard

DEFAULT_SETTINGS = {"betas": (0.9, 0.999), "eps": 1e-8, "momentum": 0.9, "dampening": 0, "nesterov": False,
                    "maximize": False, "alpha": 0.99, "centered": False, "amsgrad": False, "rho": 0.9}  # fmt: skip


HALVES = (torch.float16, torch.bfloat16)
ASKED_EVERY = 20  # steps between two looks at whether a trial leads anywhere

Applied = Callable[[RunContext], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class Change:
    """One thing that a trial does otherwise.

    Args:
        trial: what it changes, in words and numbers.
        applied: brings it about within the block; the start comes back afterwards whatever it does.
        update: makes another update; None: the run's own.
        task: makes another task; None: the run's own.
        blind: nothing that was seen asks for it: any run that failed is tried so.
    """

    trial: Trial
    applied: Applied | None = None
    update: Callable[[RunContext, GradientWatch], Update] | None = None
    task: Callable[[RunContext], Any] | None = None
    blind: bool = False


def attempt(
    context: RunContext, change: Change, *, steps: int, seconds: float, hopeless: Callable[[Sequence[float]], bool]
) -> Attempt:
    """Makes one trial.

    Args:
        hopeless: asked now and then with the objective so far; True ends the trial.

    Raises:
        Refused: the user's code does not take the change.
    """
    with context.at_start(), contextlib.ExitStack() as stack:
        if change.applied is not None:
            stack.enter_context(change.applied(context))
        context = context if change.task is None else context.on(change.task(context))
        watch = context.new_watch()
        update = context.update(context.task, watch) if change.update is None else change.update(context, watch)
        enough = _Enough(Again(update), hopeless)
        plan = replace(
            context.plan,
            max_steps=steps,
            max_seconds=seconds,
            val_every=NEVER,
            gradient_every=NEVER,
            strict_terms=False,
        )
        curves = context.again(enough, plan=plan, watch=watch)
    if curves.stop == "interrupted":
        raise KeyboardInterrupt
    curve = tuple(row["objective"] for row in curves.steps)
    passed = curves.stop == "passed"
    return Attempt(change.trial, curve, len(curve) if passed else None, curves.stop)


class _Enough(Around):
    """An update that ends a trial which leads nowhere: the loop takes a raised Detached for the end.

    The objective is read off the device when it is asked for, and not at every step.
    """

    def __init__(self, inner: Update, hopeless: Callable[[Sequence[float]], bool]) -> None:
        super().__init__(inner)
        self.hopeless = hopeless
        self.curve: list[float] = []
        self.waiting: list[Any] = []

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        if step and step % ASKED_EVERY == 0:
            self.curve += map(float, self.waiting)
            self.waiting.clear()
            if self.hopeless(self.curve):
                raise Detached
        row = self.inner(step, look=look, observe=False)
        self.waiting.append(row.values[0])
        return row


# What can be changed.


def rate(factor: float) -> Applied:
    """Every learning rate times a factor at the moment of the step, so that schedules stay what they are."""
    return lambda context: _stepped(lambda index, group: {"lr": group["lr"] * factor} if "lr" in group else {})


def fixed_rates(rates: Mapping[int, float]) -> Applied:
    """Group i of every optimizer steps with ``rates[i]``, whatever a schedule says."""
    return lambda context: _stepped(
        lambda index, group: {"lr": rates[index]} if index in rates and "lr" in group else {}
    )


def settings(**values: Any) -> Applied:
    """Settings of every group that has them, for the length of every step."""
    return lambda context: _stepped(lambda index, group: {key: values[key] for key in values if key in group})


@contextlib.contextmanager
def _stepped(change: Callable[[int, Mapping[str, Any]], Mapping[str, Any]]) -> Iterator[None]:
    """Whatever optimizer steps has other settings for the length of that step: those that ``change`` gives a group."""
    undo: list[list[tuple[dict[str, Any], dict[str, Any]]]] = []

    def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        undo.append([])
        for index, group in enumerate(optimizer.param_groups):
            new = change(index, group)
            undo[-1].append((group, {key: group[key] for key in new}))
            group.update(new)

    def after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for group, old in undo.pop() if undo else ():
            group.update(old)

    with optimizers_heard(before, after):
        yield


def plain_update(context: RunContext, watch: GradientWatch) -> Update:
    """Zero, forward, backward, step: ours, with the optimizers of the run."""
    return PlainUpdate(
        context.task, context.optimizers, watch, clip=GradientClipper(context.task.model, ()), frozen=context.frozen
    )


def own_loss(context: RunContext) -> Any:
    """The loss inside the user's step, where the run has no other."""
    return loss_of(context) or context.task


def all_parameters(lr: float) -> Callable[[RunContext, GradientWatch], Update]:
    """Our step over every parameter that is trainable now, by an optimizer like the run's, or an AdamW of ours."""

    def make(context: RunContext, watch: GradientWatch) -> Update:
        parameters = [p for p in context.task.model.parameters() if p.requires_grad]
        optimizer = _like(context.optimizers, parameters) or torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
        return PlainUpdate(
            context.task, [optimizer], watch, clip=GradientClipper(context.task.model, ()), frozen=Freezing()
        )

    return make


def _like(optimizers: Sequence[Optimizer], parameters: list[nn.Parameter]) -> Optimizer | None:
    """One of the same class and with the same settings; None where there are several, or it is not torch's."""
    if len(optimizers) != 1 or not type(optimizers[0]).__module__.startswith("torch.optim"):
        return None
    given = optimizers[0].param_groups[0]
    takes = [name for name in inspect.signature(type(optimizers[0])).parameters if name in given and name != "params"]
    settings = {name: given[name] for name in takes}
    settings["lr"] = given.get("initial_lr", given["lr"])  # a schedule has come to its end
    return type(optimizers[0])(parameters, **settings)


@contextlib.contextmanager
def unfrozen(context: RunContext) -> Iterator[None]:
    """Every parameter is trainable."""
    if any(is_lazy(parameter) for parameter in context.task.model.parameters()):
        raise Unanswerable("lazy modules have no parameters before the first step")
    for parameter in context.task.model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    yield


@contextlib.contextmanager
def fresh_state(context: RunContext) -> Iterator[None]:
    """Optimizers that remember nothing, as new ones do."""
    for optimizer in context.optimizers:
        if isinstance(optimizer, torch.optim.Adagrad):
            raise Unanswerable("Adagrad fills its state where it is built, and steps with none without it")
        optimizer.state.clear()
    yield


@contextlib.contextmanager
def same_numbers(context: RunContext) -> Iterator[None]:
    """The random generators start every forward pass alike: dropout and noise become the same at every step."""

    def seed(module: nn.Module, args: Any) -> None:
        seed_everything(context.seed)

    handles = [nn.Module.register_forward_pre_hook(module, seed) for module in _models(context)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _models(context: RunContext) -> Iterator[nn.Module]:
    given = getattr(context.task, "given", context.task.model)
    if isinstance(given, nn.Module):
        yield given
    else:
        yield from (given.values() if hasattr(given, "values") else given)


def rescaled(name: str, factor: float) -> Applied:
    """What one module returns, times a factor."""

    @contextlib.contextmanager
    def block(context: RunContext) -> Iterator[None]:
        model = context.task.model
        module = dict(model.named_modules()).get("" if name == type(model).__name__ else name)
        if module is None:
            raise Unanswerable(f"{name} is no module of the model")
        handle = module.register_forward_hook(
            lambda module, args, out: map_tensors(lambda t: t * factor if t.is_floating_point() else t, out)
        )
        try:
            yield
        finally:
            handle.remove()

    return block


@contextlib.contextmanager
def fresh_weights(context: RunContext) -> Iterator[None]:
    """Every module that has trainable parameters of its own and can initialise them does so."""
    for module in context.task.model.modules():
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if callable(reset) and any(p.requires_grad for p in module.parameters(recurse=False)):
            reset()
    yield


@contextlib.contextmanager
def full_precision(context: RunContext) -> Iterator[None]:
    """The model in float32; its batch: ``full_batch``."""
    for parameter in [*context.task.model.parameters(), *context.task.model.buffers()]:
        if parameter.dtype in HALVES:
            parameter.data = parameter.data.float()
    yield


def on_batch(change: Callable[[str, Tensor], Tensor]) -> Callable[[RunContext], Any]:
    """The run's task over a batch whose tensors are changed by key."""

    def make(context: RunContext) -> Any:
        batch = context.task.batch
        keys = {id(tensor): key for key, tensor in named_tensors(batch)}
        task: Any = context.task
        return replace(task, batch=map_tensors(lambda t: change(keys.get(id(t), ""), t), batch))

    return make


def standardised(keys: Sequence[str]) -> Callable[[RunContext], Any]:
    """These tensors with zero mean and unit deviation: per column where they are (B, D), else as a whole."""

    def change(key: str, tensor: Tensor) -> Tensor:
        if key not in keys or not tensor.is_floating_point():
            return tensor
        value = tensor.detach().double()
        if value.dim() == 2 and value.shape[0] > 2:
            mean, deviation = value.mean(0), value.std(0, correction=0)
        else:
            mean, deviation = value.mean(), value.std(correction=0)
        return ((value - mean) / torch.where(deviation > 0, deviation, 1.0)).to(tensor.dtype)

    return on_batch(change)


full_batch = on_batch(lambda key, tensor: tensor.float() if tensor.dtype in HALVES else tensor)
"""The run's task over its batch in float32."""
