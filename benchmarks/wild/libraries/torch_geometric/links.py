"""Edges that are foreseen, from the graph without them or from a knowledge graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch_geometric.nn as gnn
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.torch_geometric.parts import FEATURES, NODES, one_graph, program


def programs() -> Iterator[Program]:
    """Edges are foreseen, from the graph without them or from a knowledge graph."""
    yield program("GAE", lambda: gnn.GAE(gnn.GCN(FEATURES, 32, 2, 16)), link_data, reconstruction, 0.02, "", lr=1e-2)
    yield program(
        "VGAE",
        lambda: gnn.VGAE(TwoHeads()),
        link_data,
        variational,
        1.6,
        "terms stochastic",
        lr=1e-2,
        given={"stochastic": True},
    )
    yield program("ComplEx", lambda: gnn.ComplEx(10, 3, 16), triples, knowledge, 0.02, "embedding tuple", lr=1e-2)
    yield program("LightGCN", lambda: gnn.LightGCN(12, 16, 2), ranked, ranking, 0.02, "embedding", lr=1e-2, steps=300)


def link_data() -> Data:
    """A graph, the edges that are to be foreseen, and as many that are not there."""
    data = one_graph()
    data.negative = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [6, 8, 9, 10, 11, 10, 1, 2]])
    return data


class TwoHeads(nn.Module):
    """The mean and the logarithm of the deviation of every node."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = gnn.GCNConv(FEATURES, 32)
        self.mean, self.log_deviation = gnn.GCNConv(32, 16), gnn.GCNConv(32, 16)

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """Two tensors of shape (nodes, 16)."""
        x = self.shared(x, edge_index).relu()
        return self.mean(x, edge_index), self.log_deviation(x, edge_index)


def reconstruction(model: Any, data: Any) -> Tensor:
    """The edges that are there, and those that are not."""
    loss: Tensor = model.recon_loss(model.encode(data.x, data.edge_index), data.edge_index, data.negative)
    return loss


def variational(model: Any, data: Any) -> Tensor:
    """The same, and the distance of the codes from a normal distribution."""
    codes = model.encode(data.x, data.edge_index)
    loss: Tensor = model.recon_loss(codes, data.edge_index, data.negative) + model.kl_loss() / NODES
    return loss


def triples() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Heads, relations and tails; the first eight are true, the others are not."""
    truth = torch.cat([torch.ones(8), torch.zeros(8)])
    return torch.arange(16) % 10, torch.arange(16) % 3, (torch.arange(16) * 7 + 3) % 10, truth


def knowledge(model: Any, batch: Any) -> Tensor:
    """Binary cross entropy of the scores of triples."""
    head, relation, tail, truth = batch
    return F.binary_cross_entropy_with_logits(model(head, relation, tail), truth)


def ranked() -> Data:
    """Users and things that they chose: for each edge one that they did not."""
    users = torch.arange(6).repeat_interleave(2)
    chosen = 6 + (torch.arange(12) * 5) % 6
    not_chosen = 6 + (torch.arange(12) * 5 + 3) % 6
    both = torch.stack([users, chosen])
    return Data(edge_index=torch.cat([both, both.flip(0)], 1), positive=both, negative=torch.stack([users, not_chosen]))


def ranking(model: Any, data: Any) -> Tensor:
    """Bayesian personalised ranking: what was chosen above what was not."""
    count = data.positive.shape[1]
    scores = model(data.edge_index, torch.cat([data.positive, data.negative], 1))
    loss: Tensor = F.softplus(scores[count:] - scores[:count]).mean()
    return loss
