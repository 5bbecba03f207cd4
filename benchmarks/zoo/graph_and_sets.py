# mypy: disable-error-code="no-any-return"
"""Graphs, point sets, pooling by attention, mixtures of experts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.case import Setup, cases, fixed, mlp
from benchmarks.zoo.dense import classify
from benchmarks.zoo.vision import adam

Batch = dict[str, Any]


def graph(nodes: int = 16) -> Batch:
    """Random undirected graph with loops: features (N, 8), adjacency (N, N), labels; some nodes have no label."""
    source = fixed()
    edges = torch.rand(nodes, nodes, generator=source) < 0.15
    adjacency = (edges | edges.T | torch.eye(nodes, dtype=torch.bool)).float()
    return {
        "features": torch.randn(nodes, 8, generator=source),
        "adjacency": adjacency,
        "label": torch.randint(0, 3, (nodes,), generator=source),
        "train_mask": torch.rand(nodes, generator=source) < 0.7,
    }


class GCN(nn.Module):
    """Two graph convolutions, D^-1/2 A D^-1/2 X W (Kipf and Welling, 2017), and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 3)

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        scale = adjacency.sum(1).rsqrt()
        mixing = scale[:, None] * adjacency * scale
        x = F.relu(mixing @ self.first(features))
        return self.head(F.relu(mixing @ self.second(x)))


def graph_convolution() -> Setup:
    """Labels of the nodes under a mask, dense adjacency."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["features"], batch["adjacency"])
        return F.cross_entropy(logits[batch["train_mask"]], batch["label"][batch["train_mask"]])

    return Setup(GCN(), graph(), loss, optimizer=adam(5e-3))


class GAT(nn.Module):
    """Two layers of single-head graph attention over the edges of the graph."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(8, width), nn.Linear(width, 1)
        self.values = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.scores = nn.ModuleList(nn.Linear(width, 2, bias=False) for _ in range(2))

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        x = self.enter(features)
        for value, score in zip(self.values, self.scores, strict=True):
            left, right = score(x).unbind(1)
            weight = F.leaky_relu(left[:, None] + right).masked_fill(adjacency == 0, -1e9).softmax(1)
            x = x + F.elu(weight @ value(x))
        return self.head(x).squeeze(1)


def graph_attention() -> Setup:
    """A value per node."""
    whole = graph()
    batch = {"features": whole["features"], "adjacency": whole["adjacency"]}
    batch["value"] = torch.randn(16, generator=fixed(1))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(batch["features"], batch["adjacency"]), batch["value"])

    return Setup(GAT(), batch, loss, optimizer=adam(5e-3))


class MessagePassing(nn.Module):
    """Messages along an edge list, summed at their targets; a value per graph."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.enter = nn.Linear(5, width)
        self.message, self.update = mlp(2 * width + 1, width, width), nn.GRUCell(width, width)
        self.head = mlp(width, width, 1)

    def forward(self, atoms: Tensor, edges: Tensor, lengths: Tensor, graph: Tensor) -> Tensor:
        x = self.enter(atoms)
        source, target = edges
        for _ in range(2):
            sent = self.message(torch.cat([x[source], x[target], lengths], dim=1))
            x = self.update(torch.zeros_like(x).index_add(0, target, sent), x)
        pooled = x.new_zeros(int(graph.max()) + 1, x.shape[1]).index_add(0, graph, x)
        return self.head(pooled).squeeze(1)


def molecule_message_passing() -> Setup:
    """Three graphs in one, by an index of the graph of every node."""
    source = fixed()
    graph_of = torch.arange(3).repeat_interleave(5)
    edges = torch.cat([torch.randint(0, 5, (2, 9), generator=source) + 5 * index for index in range(3)], dim=1)
    batch = {
        "inputs": {
            "atoms": torch.randn(15, 5, generator=source),
            "edges": edges,
            "lengths": torch.rand(27, 1, generator=source) + 1,
            "graph": graph_of,
        },
        "energy": torch.randn(3, generator=source),
    }

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(**batch["inputs"]), batch["energy"])

    return Setup(MessagePassing(), batch, loss, optimizer=adam(2e-3))


def sets(count: int = 8, size: int = 12) -> Batch:
    """Point sets (count, size, 3) with labels."""
    source = fixed()
    return {
        "x": torch.randn(count, size, 3, generator=source),
        "y": torch.randint(0, 4, (count,), generator=source),
    }


class DeepSets(nn.Module):
    """rho(mean phi(x)) (Zaheer et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.phi, self.rho = mlp(3, 64, 64), mlp(64, 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.rho(self.phi(x).mean(1))


def deep_sets() -> Setup:
    """Sets of one size."""
    return Setup(DeepSets(), sets(), classify, optimizer=adam(5e-3))


class PointNet(nn.Module):
    """Shared layers with BatchNorm and max pooling over the points."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Sequential(
            nn.Conv1d(3, 48, 1, bias=False), nn.BatchNorm1d(48), nn.ReLU(),
            nn.Conv1d(48, 96, 1, bias=False), nn.BatchNorm1d(96), nn.ReLU(),
        )  # fmt: skip
        self.head = mlp(96, 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.points(x.transpose(1, 2)).amax(2))


def point_net() -> Setup:
    """Max pooling: most points get no gradient."""
    return Setup(PointNet(), sets(), classify)


class AttentionPooling(nn.Module):
    """Sets of several sizes, padded, pooled by the attention of one learned query."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.enter = mlp(3, width, width)
        self.query = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.head = mlp(width, 64, 4)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        x = self.enter(x)
        pooled, _ = self.attention(self.query.expand(len(x), -1, -1), x, x, key_padding_mask=padding)
        return self.head(pooled[:, 0])


def attention_pooling() -> Setup:
    """Padding of a mask, True where there is nothing."""
    batch = sets()
    sizes = torch.randint(4, 13, (8,), generator=fixed(1))
    batch["padding"] = torch.arange(12) >= sizes[:, None]
    batch["x"] = batch["x"].masked_fill(batch["padding"][..., None], 0.0)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch["x"], batch["padding"]), batch["y"])

    return Setup(AttentionPooling(), batch, loss, optimizer=adam(3e-3))


class Hopfield(nn.Module):
    """Retrieval from stored patterns (Ramsauer et al., 2021) with a learned inverse temperature, and a head."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.query, self.norm = nn.Linear(36, width), nn.LayerNorm(width)
        self.stored = nn.Parameter(torch.randn(24, width))
        self.log_beta = nn.Parameter(torch.tensor(-0.5 * math.log(width)))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = self.norm(self.query(x.flatten(1)))
        for _ in range(2):
            state = (self.log_beta.exp() * state @ self.stored.T).softmax(1) @ self.stored
        return self.head(state)


def hopfield_retrieval() -> Setup:
    """The prediction reads what was retrieved, and nothing else."""
    return Setup(Hopfield(), sets(), classify, optimizer=adam(5e-3))


class Perceiver(nn.Module):
    """Learned latents read the points by cross attention, twice with the same weights, and talk to each other."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.latents = nn.Parameter(0.02 * torch.randn(1, 6, width))
        self.enter, self.norm = nn.Linear(3, width), nn.LayerNorm(width)
        self.cross = nn.MultiheadAttention(width, 4, batch_first=True)
        self.self_layer = nn.TransformerEncoderLayer(width, 4, 96, 0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        latents, points = self.latents.expand(len(x), -1, -1), self.enter(x)
        for _ in range(2):
            latents = latents + self.cross(self.norm(latents), points, points, need_weights=False)[0]
            latents = self.self_layer(latents)
        return self.head(latents.mean(1))


def perceiver() -> Setup:
    """Weights shared over the depth."""
    return Setup(Perceiver(), sets(), classify, optimizer=adam(3e-3))


class Experts(nn.Module):
    """Four experts per token: a soft mixture, or the best one scaled by its gate (Fedus et al., 2022)."""

    def __init__(self, top1: bool, width: int = 24) -> None:
        super().__init__()
        self.top1 = top1
        self.gate = nn.Linear(width, 4, bias=False)
        self.experts = nn.ModuleList(mlp(width, 48, width) for _ in range(4))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 5) and the load-balancing term, 1 where the load is even."""
        gates = self.gate(x).softmax(1)
        if not self.top1:
            mixed = (torch.stack([expert(x) for expert in self.experts], dim=1) * gates[..., None]).sum(1)
            return self.head(x + mixed), gates.new_zeros(())
        gate, chosen = gates.max(1)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index).nonzero()[:, 0]
            out = out.index_add(0, rows, expert(x[rows]) * gate[rows, None])
        load = F.one_hot(chosen, 4).float().mean(0)
        return self.head(x + out), 4 * (load * gates.mean(0)).sum()


def tokens() -> Batch:
    """48 token vectors with labels."""
    source = fixed()
    return {"x": torch.randn(48, 24, generator=source), "y": torch.randint(0, 5, (48,), generator=source)}


def experts_loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Cross entropy plus 0.01 times the load-balancing term."""
    logits, balance = model(batch["x"])
    entropy = F.cross_entropy(logits, batch["y"])
    return {"objective": entropy + 0.01 * balance, "cross_entropy": entropy, "balance": balance}


def experts_soft_gating() -> Setup:
    """Every expert sees every token."""
    return Setup(Experts(top1=False), tokens(), experts_loss, optimizer=adam(3e-3))


def experts_top1() -> Setup:
    """The load-balancing term is about 0.01 at its best, so a limit above it is stated."""
    return Setup(Experts(top1=True), tokens(), experts_loss, optimizer=adam(3e-3), settings={"objective": 0.03})


def link_prediction() -> Setup:
    """Node vectors without features, edges and sampled non-edges as pairs of indices."""
    every = torch.combinations(torch.arange(20))
    pairs = every[torch.randperm(len(every), generator=fixed())[:40]]
    batch = {"pairs": pairs, "linked": torch.arange(40) % 2 == 0}

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        left, right = model(batch["pairs"]).unbind(1)
        return F.binary_cross_entropy_with_logits((left * right).sum(1), batch["linked"].float())

    return Setup(nn.Embedding(20, 16), batch, loss, optimizer=adam(0.02))


CASES = cases(
    "graph_and_sets", graph_convolution, graph_attention, molecule_message_passing, deep_sets, point_net,
    attention_pooling, hopfield_retrieval, perceiver, experts_soft_gating, experts_top1, link_prediction,
)  # fmt: skip
