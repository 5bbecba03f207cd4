"""Two ranks in the place of one process: right steps and broken ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from tests.twins.small_twins import Batch, batch, net, twins


class Step:
    """A step of the user's own, with a fault that shows on several ranks alone."""

    def __init__(self, fault: str) -> None:
        self.fault, self.model = fault, net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, model: nn.Module, batch: Batch) -> Tensor:
        rank = int(dist.get_rank()) if dist.is_initialized() else 0
        x, y = batch
        if self.fault == "seed":
            x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(rank))
        self.optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.fault == "summed" and dist.is_initialized():
            for p in self.model.parameters():
                if p.grad is not None:
                    dist.all_reduce(p.grad)
        if self.fault == "scaled" and dist.is_initialized():
            for group in self.optimizer.param_groups:
                group["lr"] = 0.1 * dist.get_world_size()
        self.optimizer.step()
        return loss.detach()


@pytest.mark.parametrize("fault", ["", "seed", "summed", "scaled"])
def test_two_ranks_of_a_step_of_ones_own(fault: str) -> None:
    """Other numbers per rank, gradients that are added twice, a rate that grows with the ranks."""
    made = Step(fault)
    first, second = twins(made.model, batch(), None, step=made.step, twins="ranks")
    assert first.name == "ranks (ddp)"
    assert first.outcome == ("disagreed" if fault else "agreed"), first.text()
    line = "optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)"  # its optimizer has the model's own
    assert second.why.endswith(f"write def step(model, batch, optimizer), and {line}"), second.text()


def test_what_ranks_cannot_share_says_what_to_write() -> None:
    """An optimizer that was built is none of a sharded model; a step that holds its model trains no wrapped one."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    _, sharded = twins(model, batch(), optimizer=optimizer, twins="ranks")
    assert sharded.why.endswith("optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)"), sharded.text()

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    found = twins(model, batch(), None, step=step, twins="ranks")
    assert all("what it holds itself" in each.why for each in found), [each.text() for each in found]


class Held(nn.Module):
    """Keeps its weight in a list as well: FSDP2 shards the parameter, and the list goes on with the old one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.held = [self.linear.weight]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) + F.linear(x, self.held[0])
        return out


class Ranked(nn.Module):
    """Does on each rank something else."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.linear, self.fault = nn.Linear(4, 1), fault

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        if dist.is_initialized() and self.fault == "rank":
            return out * (1 + dist.get_rank())
        return out / 2 if dist.is_initialized() and self.fault == "size" else out


@pytest.mark.parametrize(
    ("model", "outcomes"),
    [
        (Held(), ["agreed", "disagreed"]),
        (Ranked("rank"), ["disagreed", "disagreed"]),
        (Ranked("size"), ["disagreed", "disagreed"]),
        (Ranked(""), ["agreed", "agreed"]),
    ],
)
def test_two_ranks_of_a_model_that_is_another_there(model: nn.Module, outcomes: Sequence[str]) -> None:
    """A parameter that is held twice, an output that depends on the rank or on the number of ranks."""
    found = twins(model, batch(), twins="ranks", optimizer=sgd)
    assert [each.outcome for each in found] == outcomes, [each.text() for each in found]
    assert all(each.step in (1, 2) and each.gradients for each in found if each.outcome == "disagreed")


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def test_two_ranks_share_a_batch() -> None:
    """DDP and FSDP2, each started here; no process stays."""
    before = children()
    found = twins(net(), batch(), twins="ranks")
    assert [(each.name, each.outcome) for each in found] == [("ranks (ddp)", "agreed"), ("ranks (fsdp)", "agreed")]
    assert "the batch is sharded" in found[0].exchanged
    assert children() <= before


def children() -> set[str]:
    """The processes that this one has started and that are there."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}
