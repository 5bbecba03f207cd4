"""The run again, from the same start and with the same batch, with exactly one thing changed."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
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
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.gradient_watch import GradientWatch
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.loop import Curves, Plan
from pytest_overfit.run.optim import Freezing, GradientClipper
from pytest_overfit.run.update import Again, Around, Detached, PlainUpdate, Row, Update, optimizers_heard

DEFAULT_SETTINGS = {"betas": (0.9, 0.999), "eps": 1e-8, "momentum": 0.9, "dampening": 0, "nesterov": False,
                    "maximize": False, "alpha": 0.99, "centered": False, "amsgrad": False, "rho": 0.9}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One thing that a trial does otherwise.

    Args:
        trial: what it changes, in words and numbers.
        applied: brings it about within the block; the start comes back afterwards whatever it does.
        update: makes another update; None: the run's own.
        task: makes another task; None: the run's own.
    """

    trial: Trial
    applied: Callable[[RunContext], contextlib.AbstractContextManager[Any]] | None = None
    update: Callable[[RunContext, GradientWatch], Update] | None = None
    task: Callable[[RunContext], Any] | None = None


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
            val_every=10**9,
            gradient_every=10**9,
            strict_terms=False,
        )
        seed_everything(context.seed)
        curves = _fit(context, enough, plan, watch)
    if curves.stop == "interrupted":
        raise KeyboardInterrupt
    curve = tuple(row["objective"] for row in curves.steps)
    passed = curves.stop == "passed"
    return Attempt(change.trial, curve, len(curve) if passed else None, curves.stop)


def _fit(context: RunContext, update: Update, plan: Plan, watch: GradientWatch) -> Curves:
    from pytest_overfit.run.loop import fit

    return fit(context.task, update, plan, watch=watch)


class _Enough(Around):
    """An update that ends a trial which leads nowhere: the loop takes a raised Detached for the end."""

    def __init__(self, inner: Update, hopeless: Callable[[Sequence[float]], bool]) -> None:
        super().__init__(inner)
        self.hopeless = hopeless
        self.curve: list[float] = []

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        if step and step % 20 == 0 and self.hopeless(self.curve):
            raise Detached
        row = self.inner(step, look=look, observe=False)
        value = row.values[0] if isinstance(row.values, list) else float(row.values[0])
        self.curve.append(float(value))
        return row


# What can be changed.


def rate(factor: float, *, group: int | None = None) -> Callable[[RunContext], contextlib.AbstractContextManager[Any]]:
    """Every learning rate times a factor at the moment of the step, so that schedules stay what they are."""
    return lambda context: _stepped(lambda optimizer: _scaled(optimizer, factor, group))


@contextlib.contextmanager
def _stepped(change: Callable[[Optimizer], Callable[[], None]]) -> Iterator[None]:
    """Changes settings of whatever optimizer steps for the length of that step."""
    undo: list[Callable[[], None]] = []

    def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        undo.append(change(optimizer))

    def after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if undo:
            undo.pop()()

    with optimizers_heard(before, after):
        yield


def _scaled(optimizer: Optimizer, factor: float, group: int | None) -> Callable[[], None]:
    kept = [(g, g["lr"]) for i, g in enumerate(optimizer.param_groups) if "lr" in g and group in (None, i)]
    for each, lr in kept:
        each["lr"] = lr * factor
    return lambda: _put_back(kept)


def _put_back(kept: list[tuple[dict[str, Any], Any]]) -> None:
    for group, rate in kept:
        group["lr"] = rate


def _put_all_back(kept: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for group, old in kept:
        group.update(old)


def fixed_rates(rates: dict[int, float]) -> Callable[[RunContext], contextlib.AbstractContextManager[Any]]:
    """Group i of every optimizer steps with ``rates[i]``, whatever a schedule says."""

    def change(optimizer: Optimizer) -> Callable[[], None]:
        kept = [(g, g["lr"]) for i, g in enumerate(optimizer.param_groups) if i in rates and "lr" in g]
        for index, group in enumerate(optimizer.param_groups):
            if index in rates and "lr" in group:
                group["lr"] = rates[index]
        return lambda: _put_back(kept)

    return lambda context: _stepped(change)


def settings(**values: Any) -> Callable[[RunContext], contextlib.AbstractContextManager[Any]]:
    """Settings of every group that has them, for the length of every step."""

    def change(optimizer: Optimizer) -> Callable[[], None]:
        kept = [(g, {k: g[k] for k in values if k in g}) for g in optimizer.param_groups]
        for group, old in kept:
            group.update({k: values[k] for k in old})
        return lambda: _put_all_back(kept)

    return lambda context: _stepped(change)


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


def unfrozen(context: RunContext) -> contextlib.AbstractContextManager[Any]:
    """Every parameter is trainable."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        if any(is_lazy(parameter) for parameter in context.task.model.parameters()):
            raise Unanswerable("lazy modules have no parameters before the first step")
        for parameter in context.task.model.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        yield

    return block()


def same_numbers(context: RunContext) -> contextlib.AbstractContextManager[Any]:
    """The random generators start every forward pass alike: dropout and noise become the same at every step."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        def seed(module: nn.Module, args: Any) -> None:
            seed_everything(context.seed)

        handles = [nn.Module.register_forward_pre_hook(module, seed) for module in _models(context)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    return block()


def _models(context: RunContext) -> Iterator[nn.Module]:
    given = getattr(context.task, "given", context.task.model)
    if isinstance(given, nn.Module):
        yield given
    else:
        yield from (given.values() if hasattr(given, "values") else given)


def rescaled(name: str, factor: float) -> Callable[[RunContext], contextlib.AbstractContextManager[Any]]:
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


def fresh_weights(context: RunContext) -> contextlib.AbstractContextManager[Any]:
    """Every module that can initialise itself does so."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        for module in context.task.model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset) and any(p.requires_grad for p in module.parameters(recurse=False)):
                reset()
        yield

    return block()


def full_precision(context: RunContext) -> contextlib.AbstractContextManager[Any]:
    """The model and its batch in float32."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        for parameter in [*context.task.model.parameters(), *context.task.model.buffers()]:
            if parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = parameter.data.float()
        yield

    return block()


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
