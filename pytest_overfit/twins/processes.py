"""DDP and FSDP2 over two processes of this machine, against the run in one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import Refused, Unanswerable
from pytest_overfit.run.call_task import listened_to
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.isolation import seed_everything
from pytest_overfit.run.ranks.engine import SharedUpdate, shared_plan, shared_task
from pytest_overfit.run.ranks.group import Ranks
from pytest_overfit.run.ranks.meeting import join
from pytest_overfit.run.ranks.sharding import factory_line, sharded
from pytest_overfit.run.subject import Subject
from pytest_overfit.run.training import Training
from pytest_overfit.run.twin_record import TwinResult
from pytest_overfit.run.update import into_training
from pytest_overfit.settings.launch import Launch
from pytest_overfit.settings.settings import Distributed
from pytest_overfit.twins.course import Course, Exchange, go_on, replay
from pytest_overfit.twins.elsewhere import Elsewhere
from pytest_overfit.twins.places import called_itself
from pytest_overfit.twins.side import Side

SIZE = 2
TIMEOUT = 60.0  # seconds that a rank waits for the other
HELD = "the step trains what it holds itself, not what ranks share: write def step(model, batch, optimizer), and "
STRATEGIES: Mapping[Any, str] = {"ddp": "DDP", "fsdp": "FSDP2"}


def ranks(side: Side, there: Sequence[Elsewhere], folder: Path) -> Iterator[Callable[[], TwinResult]]:
    """Two processes that stand where the training began."""
    if not dist.is_available() or not dist.is_gloo_available():
        raise Unanswerable("this torch has no gloo")
    called_itself(side.context)
    for index, strategy in enumerate(STRATEGIES):
        yield partial(_together, side, there[SIZE * index : SIZE * (index + 1)], folder, strategy)


def _together(side: Side, there: Sequence[Elsewhere], folder: Path, strategy: str) -> TwinResult:
    steps = min(side.steps, len(side.reference.losses))
    job: dict[str, Any] = {"store": str(folder / strategy), "steps": steps, "strategy": strategy}
    job["line"] = ", ".join(map(factory_line, side.context.optimizers[:1]))
    for rank, process in enumerate(there):
        process.start({**job, "rank": rank})
    told = [process.result() for process in there]
    course: Course = told[0]["course"]
    return side.compared(f"ranks ({strategy})", side.reference, course, told[0]["note"], cut=True)


def alone(side: Side, size: int) -> TwinResult:
    """One process against the ranks of this launch: each makes the run again by itself, on the whole batch.

    Raises:
        Unanswerable: they train by a step of the user's, which may be together whatever they do.
    """
    context = side.context
    if context.step is not None:
        raise Unanswerable("a step of its own may train together wherever it is called: ask one process")
    course = replay(context, min(side.steps, len(side.reference.losses)))
    how = f"{size} ranks in place of one process"
    return replace(side, reference=course, noise_of={}).compared("ranks", course, side.reference, how, cut=True)


def rank_of(context: RunContext, subject: Subject, job: Mapping[str, Any]) -> dict[str, Any]:
    """What one of the processes does."""
    store, limit = f"file://{job['store']}", timedelta(seconds=TIMEOUT)
    dist.init_process_group("gloo", init_method=store, rank=job["rank"], world_size=SIZE, timeout=limit)
    ranks = join(Launch(job["rank"], SIZE, job["rank"], SIZE), timeout=TIMEOUT)
    settings = Distributed(strategy=job["strategy"], timeout=TIMEOUT)
    seed_everything(context.seed)
    try:
        with ranks.run("a twin", settings):
            into_training(context.task.model)
            if ranks.shards_models:
                context = _sharded(context, subject, ranks)
            shared = shared_task(ranks, context)
            seed_everything(context.seed)
            plan = shared_plan(ranks, context.plan)

            def update(context: RunContext, watch: Any) -> SharedUpdate:
                return SharedUpdate(context.update(shared.task, watch, shared.given), shared)

            exchange = Exchange(update=update, task=lambda c: shared.task)
            with _called(shared.given) as called:
                course = go_on(replace(context, plan=plan), job["steps"], exchange)
            if not called or not any(course.gradients):
                raise Unanswerable(HELD + job["line"])
    except Refused as refused:  # in words of the user's code
        raise refused.error from refused
    course.losses = list(course.curve)
    return {"course": course if ranks.is_first else None, "note": shared.note.partition(";")[0]}


@contextlib.contextmanager
def _called(given: Any) -> Iterator[list[None]]:
    """One item for each call of a model, for the length of the block."""
    calls: list[None] = []
    with contextlib.ExitStack() as stack:
        for _, root in listened_to(given):
            stack.callback(root.register_forward_pre_hook(lambda module, args: calls.append(None)).remove)
        yield calls


def _sharded(context: RunContext, subject: Subject, ranks: Ranks) -> RunContext:
    """The run of sharded copies of the model."""
    device = context.task.device
    try:
        shards, model = sharded(ranks, subject, device)
    except OverfitError as error:
        raise Unanswerable(f"FSDP2 is given {error.found}, and needs {error.allowed}: {error.hint}") from None
    training = Training(context.request, model.to(device), device, given=shards, ranks=ranks)
    return training.context(training.plan())
