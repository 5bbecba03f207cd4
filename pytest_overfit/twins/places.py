"""Elsewhere in this process: on another device, and as an exported program."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit.errors.asking import Refused, Unanswerable, users_code
from pytest_overfit.run.batch import freeze_batch
from pytest_overfit.run.call_task import attributes_of, listened_to
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.differentiated import differentiated
from pytest_overfit.run.gradient_watch import named_outputs
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.loop import evaluating
from pytest_overfit.run.optim import follow_device, follow_model, to_device
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.twins.course import Exchange, Tolerance
from pytest_overfit.twins.side import Side, gap_of

KERNELS = Tolerance(1e-3, 1e-2, 1e-1)  # other kernels, tf32 where it is on: ten times another order of summing


def device(side: Side) -> Iterator[Callable[[], TwinResult]]:
    """The CPU against the accelerator, whichever of them the run was on."""
    here = side.context.task.device
    there = accelerator() if here.type == "cpu" else torch.device("cpu")
    if there is None:
        raise Unanswerable("there is no accelerator here")
    yield lambda: side.against("device", moved(there), f"{there.type} in place of {here.type}", KERNELS)


def accelerator() -> torch.device | None:
    """The accelerator of this machine."""
    if not torch.accelerator.is_available():
        return None
    return torch.accelerator.current_accelerator()


def moved(there: torch.device) -> Exchange:
    """Model, batch and optimizers on another device."""

    @contextlib.contextmanager
    def applied(context: RunContext) -> Iterator[None]:
        here, model = context.task.device, context.task.model
        new, _ = to_device(model, there)  # where that makes new parameters, the old ones come back with the start
        for optimizer in context.optimizers:
            follow_model(optimizer, new)
        try:
            yield
        finally:
            if all(id(now) == old for old, now in new.items()):
                model.to(here)
                for optimizer in context.optimizers:
                    follow_device(optimizer)

    def task(context: RunContext) -> Any:
        return replace(context.task, batch=freeze_batch(context.task.batch, there), device=there)

    return Exchange(applied=applied, task=task, redraws=True)


def export(side: Side) -> Iterator[Callable[[], TwinResult]]:
    """The exported program of the trained model gives the outputs that the model gives."""
    for name, root in listened_to(side.context.task.given):
        yield partial(_exported, side, name, root)


def _exported(side: Side, name: str, root: nn.Module) -> TwinResult:
    called, shown = _call_of(side.context, root), f"export ({name})" if name else "export"
    with evaluating(root), torch.enable_grad(), users_code(), _quiet():
        plain, drawn = _outputs(root, called, side.context.seed)
        try:
            program = torch.export.export(root, *called).module()
        except Exception as error:
            raise Refused(error) from error
        again, _ = _outputs(program, called, side.context.seed)
    told = TwinResult(shown, "agreed", "torch.export of the trained model", allowed=10 * side.tolerance.loss)
    if not plain:
        raise Unanswerable("the model gives no tensor")
    sizes = [_apart(one, other) for one, other in zip(plain, again, strict=False)]
    sizes += [float("inf")] * (len(plain) != len(again))
    worst = max(sizes)
    if worst <= told.allowed:
        return replace(told, size=worst)
    if drawn:
        raise Unanswerable("random numbers are drawn in evaluation mode, and the exported program draws others")
    return replace(told, outcome="disagreed", what=f"output {sizes.index(worst)} of the exported program", size=worst)


def _outputs(module: nn.Module, called: Any, seed: int) -> tuple[list[Tensor], bool]:
    """What a call gives under a seed, and whether it draws random numbers."""
    seed_everything(seed)
    before = torch.get_rng_state()
    outputs = [output for _, output in named_outputs(attributes_of(module(*called[0], **called[1])))]
    return outputs, not torch.equal(before, torch.get_rng_state())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What torch logs and prints of a program that it cannot export stands in the reason that it raises."""
    below, trace = logging.root.manager.disable, logging.getLogger("torch.__trace")  # which no level disables
    was, trace.disabled = trace.disabled, True
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(below)
        trace.disabled = was


def _apart(one: Tensor, other: Tensor) -> float:
    return gap_of(one.detach(), other.detach()) if one.shape == other.shape else float("inf")


def called_itself(context: RunContext) -> None:
    """What is put around the forward pass of a model shows only where the run calls that model, not methods of it.

    Raises:
        Unanswerable: a model that learns is not called.
    """
    for _, root in listened_to(context.task.given):
        if any(p.requires_grad for p in root.parameters()):
            _call_of(context, root)


def _call_of(context: RunContext, root: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that a model is called with in this run.

    Raises:
        Unanswerable: it is not called.
    """
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    handle = root.register_forward_pre_hook(lambda m, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    try:
        with evaluating(context.task.model), torch.enable_grad(), users_code():
            if context.step is not None:
                differentiated(context.step, context.task.batch)
            else:
                context.task.forward(context.task.batch)
    finally:
        handle.remove()
        context.task.heard.clear()
    if not calls:
        raise Unanswerable(f"{type(root).__name__} is not called itself")
    return calls[0]
