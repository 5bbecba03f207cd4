"""Elsewhere: on another device, as an exported program, and the batch by workers of its DataLoader."""

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
from torch.utils.data import DataLoader, IterableDataset

from pytest_overfit.errors.asking import Refused, Unanswerable, users_code
from pytest_overfit.run.batch import fingerprint, freeze_batch
from pytest_overfit.run.call_task import attributes_of, listened_to
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.differentiated import differentiated
from pytest_overfit.run.gradient_watch import named_outputs
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.loop import evaluating
from pytest_overfit.run.optim import follow_device, follow_model, to_device
from pytest_overfit.run.sample import differences_of
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.twins.course import Exchange, Tolerance
from pytest_overfit.twins.elsewhere import cannot_fork
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


WORKERS = 2
BATCHES = 4  # that are looked at of a stream


def workers(side: Side) -> Iterator[Callable[[], TwinResult]]:
    """The first batch, drawn in this process and by two workers; and what two workers draw at random."""
    data = side.subject.data
    if not isinstance(data, DataLoader):
        raise Unanswerable("the data are no DataLoader")
    if why := cannot_fork():
        raise Unanswerable(why)
    if isinstance(data.dataset, IterableDataset):
        yield lambda: _stream(side, data)
        return
    yield lambda: _same_batch(side, data)
    yield lambda: _seeds(data)


def _batches(seed: int, data: DataLoader[Any], count: int, *, workers: int, **order: Any) -> list[Any]:
    """The first batches of a loader like this one."""
    seed_everything(seed)
    again: DataLoader[Any] = DataLoader(
        data.dataset,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=data.collate_fn,
        worker_init_fn=data.worker_init_fn,
        **order,
    )
    with users_code():
        iterator = iter(again)
        found = [batch for _, batch in zip(range(count), iterator, strict=False)]
    del iterator
    return found


def _same_batch(side: Side, data: DataLoader[Any]) -> TwinResult:
    """Of an order that is fixed before any worker starts."""
    seed = side.context.seed
    seed_everything(seed)
    order = next(iter(data.batch_sampler), []) if data.batch_sampler is not None else [next(iter(data.sampler))]
    (here,) = _batches(seed, data, 1, workers=0, batch_sampler=[list(order)])
    (again,) = _batches(seed, data, 1, workers=0, batch_sampler=[list(order)])
    told = TwinResult("workers", "agreed", "the first batch by 2 workers in place of none")
    (there,) = _batches(seed, data, 1, workers=WORKERS, batch_sampler=[list(order)])
    if not (found := differences_of(here, there)):
        return told
    (other,) = _batches(seed + 1, data, 1, workers=0, batch_sampler=[list(order)])
    if differences_of(here, again) or differences_of(here, other):
        raise Unanswerable("the dataset draws random numbers: a worker draws others")
    return replace(told, outcome="disagreed", what=f"the batch ({found[0]})")


def _seeds(data: DataLoader[Any]) -> TwinResult:
    """One item four times: the first and the third by one worker, the others by the other."""
    first = next(iter(data.sampler))
    items = _batches(0, data, 4, workers=WORKERS, batch_sampler=[[first]] * 4)
    one, other, again, _ = map(fingerprint, items)
    told = TwinResult("workers (seeds)", "agreed", "one item by two workers")
    if one == again:
        raise Unanswerable("the dataset draws no random numbers")
    if one != other:
        return told
    what = "nothing: both workers draw the same random numbers, which"
    return replace(told, outcome="disagreed", what=what)


def _stream(side: Side, data: DataLoader[Any]) -> TwinResult:
    """Two workers share a stream: neither gives what the other gives."""
    order = {"batch_size": data.batch_size, "drop_last": data.drop_last}
    seed = side.context.seed
    here = [fingerprint(each) for each in _batches(seed, data, BATCHES, workers=0, **order)]
    there = [fingerprint(each) for each in _batches(seed, data, BATCHES, workers=WORKERS, **order)]
    told = TwinResult("workers", "agreed", "a stream by 2 workers in place of none")
    if len({*here}) < len(here):
        raise Unanswerable("the stream repeats itself")
    twice = [index for index, each in enumerate(there) if each in there[:index]]
    if not twice:
        return told
    return replace(told, outcome="disagreed", what=f"batch {twice[0]} of the stream is given by both workers, and")
