"""Clouds of points, and molecules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch_geometric.nn as gnn
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.torch_geometric.parts import program
from benchmarks.wild.parts import integers, normal


def molecules(count: int = 4) -> Batch:
    """Atoms in space, and an energy for each molecule."""
    made = []
    for index in range(count):
        atoms = 4 + index
        made.append(
            Data(
                z=integers(1, 9, atoms, seed=index),
                pos=1.5 * normal(atoms, 3, seed=50 + index),
                y=normal(1, seed=300 + index),
            )
        )
    return Batch.from_data_list(made)


def programs() -> Iterator[Program]:
    """Clouds of points, and molecules."""
    yield program("PointNetConv", PointNet, clouds, cloud_loss, 0.02, "labels points", lr=3e-3)
    yield program("EdgeConv", Dynamic, clouds, cloud_loss, 0.02, "labels points", lr=3e-3)
    yield program(
        "SchNet",
        lambda: gnn.SchNet(32, 32, 2, 16, interaction_graph=all_pairs, readout="add"),
        molecules,
        energies,
        0.01,
        "regression points embedding",
    )


def all_pairs(position: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Every atom of a molecule beside every other, and how far they are apart."""
    same = batch[:, None] == batch[None, :]
    index = (same & ~torch.eye(len(batch), dtype=torch.bool)).nonzero().T
    return index, (position[index[0]] - position[index[1]]).norm(dim=-1)


def energies(model: nn.Module, data: Any) -> Tensor:
    """The squared error of each molecule's energy."""
    return F.mse_loss(model(data.z, data.pos, data.batch)[:, 0], data.y)


def clouds() -> Batch:
    """Clouds of points, the edges between near ones, and the class of each cloud."""
    made = []
    for index in range(4):
        position = normal(10, 3, seed=400 + index)
        distance = torch.cdist(position, position) + 100 * torch.eye(10)
        near = distance.topk(3, largest=False).indices
        edge_index = torch.stack([near.flatten(), torch.arange(10).repeat_interleave(3)])
        made.append(Data(pos=position, edge_index=edge_index, y=torch.tensor([index % 3])))
    return Batch.from_data_list(made)


def cloud_loss(model: nn.Module, data: Any) -> Tensor:
    """Cross entropy of the clouds."""
    return F.cross_entropy(model(data.pos, data.edge_index, data.batch), data.y)


class PointNet(nn.Module):
    """Two layers of PointNet++ and the maximum over each cloud."""

    def __init__(self) -> None:
        super().__init__()
        self.first = gnn.PointNetConv(gnn.MLP([6, 32, 32], norm=None), gnn.MLP([32, 32], norm=None))
        self.second = gnn.PointNetConv(gnn.MLP([35, 32, 32], norm=None))
        self.head = nn.Linear(32, 3)

    def forward(self, position: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Logits of every cloud."""
        x = self.second(self.first(position, position, edge_index).relu(), position, edge_index).relu()
        out: Tensor = self.head(gnn.global_max_pool(x, batch))
        return out


class Dynamic(nn.Module):
    """Edge convolutions with batch norms, as in *Dynamic graph CNN*, on given edges."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = gnn.EdgeConv(gnn.MLP([6, 16, 16])), gnn.EdgeConv(gnn.MLP([32, 16, 16]))
        self.head = nn.Linear(32, 3)

    def forward(self, position: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Logits of every cloud."""
        first = self.first(position, edge_index)
        both = torch.cat([first, self.second(first, edge_index)], -1)
        out: Tensor = self.head(gnn.global_max_pool(both, batch))
        return out
