"""How the ranks train one model together: DDP around it, or a model that is sharded, and what each step agrees on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pytest_overfit.run.call_task import CallTask
from pytest_overfit.run.context import RunContext
from pytest_overfit.run.loop import Plan
from pytest_overfit.run.ranks.group import Ranks
from pytest_overfit.run.ranks.sharding import mapped, spread
from pytest_overfit.run.ranks.shards import shard_of, shards_train_alike, unused_parameters
from pytest_overfit.run.update import Around, Row, Update, wants_closure


@dataclass(frozen=True)
class Shared:
    """One task as this rank trains it.

    Args:
        task: calls the wrapped model with this rank's part of the batch.
        split: the batch is sharded over the ranks; else every rank trains on all of it.
        given: what a train step of the user's gets as its model.
        note: what the report says of it.
    """

    ranks: Ranks
    task: CallTask
    split: bool
    given: Any
    note: str


def shared_task(ranks: Ranks, context: RunContext, *, unused: bool = False) -> Shared:
    """The task of a run as this rank trains it: DDP around its models, and this rank's part of the batch. A collective.

    A train step of the user's own cannot be tried without training: it gets the whole batch on every rank.

    Args:
        unused: parameters without a gradient are declared.
    """
    task, fsdp, own = context.task, ranks.shards_models, context.step is not None
    if not fsdp:
        spread(task.model, ranks)
    searches = any(
        wants_closure(optimizer) for optimizer in context.optimizers
    )  # by the loss, which is another per shard
    split = not own and not searches and shards_train_alike(ranks, task, context.seed, reduced=fsdp)
    batch = shard_of(task.batch, ranks.rank, ranks.size) if split else task.batch
    find = unused
    if not fsdp and not own and task.repeatable:
        find = ranks.any_of(True if unused_parameters(task, context.seed) else None) is not None

    def wrap(model: nn.Module) -> nn.Module:
        learns = any(p.requires_grad for p in model.parameters())
        return DistributedDataParallel(model, find_unused_parameters=find) if learns and not fsdp else model

    trained = replace(task, given=mapped(task.given, wrap), batch=batch)
    return Shared(ranks, trained, split, trained.given, _note(ranks, split))


def shared_plan(ranks: Ranks, plan: Plan) -> Plan:
    """A plan whose decisions are the first rank's."""
    if plan.max_seconds is not None:  # from the first step on, as of a run of one process
        ranks.guard.limit(plan.max_seconds)
    blame = not ranks.shards_models
    return replace(plan, agree=ranks.agree, any_of=ranks.any_of, blame=blame, waits=False)


class SharedUpdate(Around):
    """The step of every rank, with the numbers of all: the mean over shards, or those of the first rank."""

    def __init__(self, inner: Update, shared: Shared) -> None:
        super().__init__(inner)
        self.shared = shared

    def __call__(self, step: int, *, look: bool, observe: bool) -> Row:
        ranks = self.shared.ranks
        ranks.guard.moved(f"step {step + 1}")
        try:
            return self._agreed(self.inner(step, look=look, observe=observe))
        except RuntimeError:
            failure = ranks.guard.failure
            if failure is not None and failure.interrupted:
                raise KeyboardInterrupt from None
            raise

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The limit of the run is that of its training: what the first rank asks afterwards has a time of its own."""
        try:
            with self.inner.running():
                yield
        finally:
            self.shared.ranks.guard.limit(None)

    def _agreed(self, row: Row) -> Row:
        ranks, shared = self.shared.ranks, self.shared
        if isinstance(row.values, Tensor):
            row.values = self._mean(row.values.detach().clone())
            return row
        told = torch.tensor([*row.values, float(row.broken)], dtype=torch.float64)
        broken = bool(ranks.total(told[-1:].clone())[0] > 0)
        row.values = self._mean(told[:-1].clone()).tolist()
        row.broken = broken or not all(map(math.isfinite, row.values))
        if shared.split:
            row.bad = ranks.any_of(row.bad) if row.broken else None
        return row

    def _mean(self, values: Tensor) -> Tensor:
        ranks = self.shared.ranks
        if self.shared.split:
            return ranks.total(values) / ranks.size
        return ranks.total(values if ranks.is_first else torch.zeros_like(values))


def _note(ranks: Ranks, split: bool) -> str:
    name = {"ddp": "DDP", "fsdp": "FSDP2"}[ranks.settings.strategy]
    how = "the batch is sharded" if split else "each trains on the whole batch"
    looked = "; not probed for defects: the model is sharded" if name == "FSDP2" else ""
    return f"{name} over {ranks.size} ranks: {how}{looked}"
