"""Parts of an input that are lost on the way to the outputs, each beside its sound relative."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from tests.support.told import told


def learn(model: Any, batch: Any, loss: Any) -> OverfitResult:
    torch.manual_seed(0)
    return run_overfit(
        model, batch, loss, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), max_steps=400, objective=0.05
    )


def rows(scale: float = 3.0) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    return scale * torch.randn(12, 6, generator=source), torch.randn(12, 2, generator=source)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 2))


class Binned(nn.Module):
    """Values in bins of a tenth, each with an embedding: what is left of them is meant."""

    def __init__(self) -> None:
        super().__init__()
        self.bins, self.head = nn.Embedding(256, 8), nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bins((10 * x).long() + 128).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("cut", [True, False])
def test_numbers_that_are_cut_to_whole_ones_lose_their_fractions(cut: bool) -> None:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x.long().float() if cut else x), y)

    result = learn(net, rows(), loss)
    assert told(result) == ("input-ignored" if cut else "")
    if cut:
        assert "behind the point of 0 " in result.causes[0].observed
        assert result.causes[0].evidence["values"] == 72


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_bins_and_numbers_that_are_whole_by_nature_lose_nothing(scale: float) -> None:
    x, y = rows(scale)
    assert told(learn(Binned, (x.clamp(-12, 12), y), lambda model, batch: F.mse_loss(model(batch[0]), batch[1]))) == ""
    whole = torch.randint(0, 40, (12, 6), generator=torch.Generator().manual_seed(2)).float() + 0.0
    assert told(learn(net, (whole / 10, y), lambda model, batch: F.mse_loss(model(batch[0]), batch[1]))) == ""


class Convolved(nn.Module):
    """Nodes (N, 6), edges (2, E) and the graph of every node: a number of each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.sent, self.head = nn.Linear(6, 64), nn.Linear(6, 64), nn.Linear(64, 2)

    def forward(self, nodes: Tensor, edges: Tensor, owners: Tensor) -> Tensor:
        received = torch.zeros(len(nodes), 64).index_add(0, edges[1], self.sent(nodes[edges[0]]))
        held = torch.tanh(self.own(nodes) + received)
        graphs = int(owners.max()) + 1
        return self.head(torch.zeros(graphs, 64).index_add(0, owners, held) / owners.bincount()[:, None])  # type: ignore[no-any-return]


def graphs(sizes: list[int], *, offset: bool, lone: int = 0) -> dict[str, Tensor]:
    """Rings in one batch, the last ``lone`` of them without edges."""
    source = torch.Generator().manual_seed(3)
    edges, before = [], 0
    for size in sizes[: len(sizes) - lone]:
        ring = torch.stack([torch.arange(size), (torch.arange(size) + 1) % size])
        edges.append(ring + before if offset else ring)
        before += size
    return {
        "x": torch.randn(sum(sizes), 6, generator=source),
        "edge_index": torch.cat(edges, 1),
        "batch": torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        "y": torch.randn(len(sizes), 2, generator=source),
    }


@pytest.mark.parametrize(
    ("sizes", "offset", "lone", "cause"),
    [
        ([5, 5, 5], False, 0, "input-ignored"),
        ([3, 6, 4], False, 0, "input-ignored"),
        ([5, 5, 5], True, 0, ""),
        ([5, 4, 3], True, 2, ""),  # two of three graphs have no edges, as they may
    ],
)
def test_edges_of_a_batch_of_graphs_are_moved_on_by_the_nodes_before(
    sizes: list[int], offset: bool, lone: int, cause: str
) -> None:
    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.mse_loss(model(batch["x"], batch["edge_index"], batch["batch"]), batch["y"])

    result = learn(Convolved, graphs(sizes, offset=offset, lone=lone), loss)
    assert told(result) == cause
    if cause:
        assert result.causes[0].where == "edge_index"
