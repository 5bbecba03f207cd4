"""Several kinds of nodes and edges, as dictionaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch_geometric.nn as gnn
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data, HeteroData

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.torch_geometric.parts import FEATURES, one_graph, program
from benchmarks.wild.parts import classes, normal


def programs() -> Iterator[Program]:
    """Several kinds of nodes and edges, as dictionaries."""
    items = {  # nothing reads what becomes of the items, which are keys and values, and the users queries
        "unused": ["convolution.out_lin.lins.item.*", "convolution.skip.item"],
        "allow": ["zero-gradient:convolution.kqv_lin.*"],
    }
    yield program("HeteroConv", Kinds, several_kinds, kinds_loss, 0.05, "labels dict", lr=1e-2)
    yield program("RGCNConv", Relational, several_relations, relations_loss, 0.05, "labels", lr=1e-2)
    yield program(
        "HGTConv", HeteroAttention, several_kinds, kinds_loss, 0.02, "labels dict attention", lr=1e-2, given=items
    )


KEYS = [("item", "of", "user"), ("user", "has", "item")]


def several_kinds() -> HeteroData:
    """Users with classes, items, and edges both ways."""
    data = HeteroData()
    data["user"].x, data["user"].y, data["item"].x = normal(6, 8), classes(6, 3), normal(4, 8, seed=1)
    forth = torch.tensor([[0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 3, 4, 5, 5]])
    data["item", "of", "user"].edge_index = forth
    data["user", "has", "item"].edge_index = forth.flip(0)
    return data


def kinds_loss(model: nn.Module, data: Any) -> Tensor:
    """Cross entropy of the users."""
    return F.cross_entropy(model(data.x_dict, data.edge_index_dict), data["user"].y)


class Kinds(nn.Module):
    """A convolution for every kind of edge, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = gnn.HeteroConv({key: gnn.SAGEConv((8, 8), 16) for key in KEYS}, aggr="sum")
        self.second = gnn.HeteroConv({KEYS[0]: gnn.SAGEConv((16, 16), 16)}, aggr="sum")
        self.head = nn.Linear(16, 3)

    def forward(self, x: dict[str, Tensor], edge_index: dict[Any, Tensor]) -> Tensor:
        """Logits of the users."""
        x = {kind: nodes.relu() for kind, nodes in self.first(x, edge_index).items()}
        out: Tensor = self.head(self.second(x, {KEYS[0]: edge_index[KEYS[0]]})["user"])
        return out


class HeteroAttention(nn.Module):
    """One layer of a heterogeneous graph transformer: of its output, users alone are read."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = gnn.HeteroDictLinear(8, 16, types=["user", "item"])
        self.convolution = gnn.HGTConv(16, 16, (["user", "item"], [KEYS[0]]), heads=2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: dict[str, Tensor], edge_index: dict[Any, Tensor]) -> Tensor:
        """Logits of the users."""
        out: Tensor = self.head(self.convolution(self.encoder(x), {KEYS[0]: edge_index[KEYS[0]]})["user"])
        return out


def several_relations() -> Data:
    """A graph whose edges have types."""
    data = one_graph()
    data.edge_type = torch.arange(data.edge_index.shape[1]) % 3
    return data


def relations_loss(model: nn.Module, data: Any) -> Tensor:
    """Cross entropy of all nodes."""
    return F.cross_entropy(model(data.x, data.edge_index, data.edge_type), data.y)


class Relational(nn.Module):
    """Weights for each relation, out of shared bases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = gnn.RGCNConv(FEATURES, 32, 3, num_bases=2), gnn.RGCNConv(32, 3, 3, num_bases=2)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        """Logits of every node."""
        out: Tensor = self.second(self.first(x, edge_index, edge_type).relu(), edge_index, edge_type)
        return out
