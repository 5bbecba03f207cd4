"""One answer for each graph of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch_geometric.nn as gnn
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.torch_geometric.parts import FEATURES, edges, program
from benchmarks.wild.parts import normal


def many_graphs(count: int = 6) -> Batch:
    """Graphs of several sizes in one batch, each with a class, a number, and features of its edges."""
    graphs = []
    for index in range(count):
        nodes = 4 + index
        edge_index = edges(nodes, 3, index)
        graphs.append(
            Data(
                x=normal(nodes, FEATURES, seed=index),
                edge_index=edge_index,
                edge_attr=normal(edge_index.shape[1], 4, seed=100 + index),
                y=torch.tensor([index % 3]),
                value=normal(1, seed=200 + index),
            )
        )
    return Batch.from_data_list(graphs)


def graph_classes(model: nn.Module, data: Any) -> Tensor:
    """Cross entropy of whole graphs."""
    return F.cross_entropy(model(data), data.y)


class Pooled(nn.Module):
    """A network of nodes, the mean over each graph, and a linear head."""

    def __init__(self, body: nn.Module, width: int, outputs: int, with_edges: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.with_edges = body, nn.Linear(width, outputs), with_edges

    def forward(self, data: Any) -> Tensor:
        """Logits of shape (graphs, outputs)."""
        more = {"edge_attr": data.edge_attr} if self.with_edges else {}
        nodes = self.body(data.x, data.edge_index, **more)
        out: Tensor = self.head(gnn.global_mean_pool(nodes, data.batch))
        return out


def programs() -> Iterator[Program]:
    """One answer for each graph of a batch."""
    fast: dict[str, Any] = {"lr": 1e-2}
    yield program(
        "GIN",
        lambda: Pooled(gnn.GIN(FEATURES, 32, 2, norm="batch_norm"), 32, 3),
        many_graphs,
        graph_classes,
        0.02,
        "labels norm batchnorm",
        **fast,
    )
    yield program(
        "GAT-edges",
        lambda: Pooled(gnn.GAT(FEATURES, 32, 2, v2=True, edge_dim=4, norm="graph_norm"), 32, 1, with_edges=True),
        many_graphs,
        lambda model, data: F.mse_loss(model(data)[:, 0], data.value),
        0.02,
        "regression attention norm",
        **fast,
    )
    yield program("GPSConv", Mixed, many_graphs, graph_classes, 0.02, "labels attention norm batchnorm residual")
    yield program("TopKPooling", Picked, many_graphs, graph_classes, 0.02, "labels", **fast)


class Mixed(nn.Module):
    """Message passing beside attention over each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(FEATURES, 16), nn.Linear(16, 3)
        local = gnn.GINConv(gnn.MLP([16, 16, 16], norm=None))
        self.convolution = gnn.GPSConv(16, local, heads=2)

    def forward(self, data: Any) -> Tensor:
        """Logits of every graph."""
        x = self.convolution(self.encoder(data.x), data.edge_index, data.batch)
        out: Tensor = self.head(gnn.global_add_pool(x, data.batch))
        return out


class Picked(nn.Module):
    """The nodes of the highest score go on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool = gnn.GraphConv(FEATURES, 32), gnn.TopKPooling(32, ratio=0.6)
        self.second, self.head = gnn.GraphConv(32, 32), nn.Linear(64, 3)

    def forward(self, data: Any) -> Tensor:
        """Logits of every graph."""
        x = self.first(data.x, data.edge_index).relu()
        x, edge_index, _, batch, _, _ = self.pool(x, data.edge_index, None, data.batch)
        x = self.second(x, edge_index).relu()
        out: Tensor = self.head(torch.cat([gnn.global_max_pool(x, batch), gnn.global_mean_pool(x, batch)], -1))
        return out
