"""Classes of nodes where some are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch_geometric.nn as gnn
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.torch_geometric.parts import FEATURES, NODES, one_graph, program


def known_nodes(model: nn.Module, data: Any) -> Tensor:
    """Cross entropy of the nodes whose class is known."""
    return F.cross_entropy(model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask])


def known_nodes_log(model: nn.Module, data: Any) -> Tensor:
    """The same with log probabilities."""
    out = F.log_softmax(model(data.x, data.edge_index), dim=-1)
    return F.nll_loss(out[data.train_mask], data.y[data.train_mask])


def programs() -> Iterator[Program]:
    """Classes of nodes where some are known."""
    sizes = {"in_channels": FEATURES, "hidden_channels": 32, "num_layers": 2, "out_channels": 3}
    fast: dict[str, Any] = {"lr": 1e-2}
    labels = "labels masked"
    yield program("GCN", lambda: gnn.GCN(**sizes), one_graph, known_nodes, 0.05, labels, **fast)
    yield program(
        "GCN-dropout",
        lambda: gnn.GCN(**{**sizes, "hidden_channels": 128}, dropout=0.5),
        one_graph,
        known_nodes_log,
        0.4,
        f"{labels} dropout",
        given={"stochastic": True},
        steps=400,
        **fast,
    )
    attention = f"{labels} attention"
    yield program("GAT", lambda: gnn.GAT(**sizes, heads=2, v2=True), one_graph, known_nodes, 0.02, attention, **fast)
    yield program("GraphSAGE", lambda: gnn.GraphSAGE(**sizes, jk="cat"), one_graph, known_nodes, 0.02, labels, **fast)
    yield program(
        "PNA",
        lambda: gnn.PNA(
            **sizes, aggregators=["mean", "max", "std"], scalers=["identity", "amplification"], deg=degrees()
        ),
        one_graph,
        known_nodes,
        0.02,
        labels,
        **fast,
    )
    yield program("DeepGCNLayer", Deep, one_graph, known_nodes, 0.05, f"{labels} norm residual", **fast)
    yield program("APPNP", Propagated, one_graph, known_nodes, 0.02, labels, **fast)


def degrees() -> Tensor:
    """How many nodes of the graph have each number of neighbours."""
    data = one_graph()
    count = torch.bincount(data.edge_index[1], minlength=NODES)
    return torch.bincount(count)


class Deep(nn.Module):
    """GENConv in residual blocks, as in *DeeperGCN*."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(FEATURES, 16), nn.Linear(16, 3)
        self.layers = nn.ModuleList(
            gnn.DeepGCNLayer(
                gnn.GENConv(16, 16, aggr="softmax", learn_t=True, num_layers=1),
                nn.LayerNorm(16),
                nn.ReLU(),
                block="res+",
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits of every node."""
        x = self.encoder(x)
        for layer in self.layers:
            x = layer(x, edge_index)
        out: Tensor = self.head(x)
        return out


class Propagated(nn.Module):
    """A perceptron whose logits are propagated over the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.perceptron = gnn.MLP([FEATURES, 32, 3], norm=None)
        self.propagate = gnn.APPNP(K=4, alpha=0.2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits of every node."""
        out: Tensor = self.propagate(self.perceptron(x), edge_index)
        return out
