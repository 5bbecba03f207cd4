"""torch_geometric: nodes, edges, whole graphs, several kinds of nodes, and points in space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch_geometric.nn as gnn
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data, HeteroData

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, integers, normal

NODES, FEATURES = 12, 8


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    traits: str,
    **more: Any,
) -> Program:
    """A model of graphs."""
    traits_of = frozenset(["graph", *traits.split()])
    return Program(f"torch_geometric/{name}", "torch_geometric", model, batch, loss, limit, traits=traits_of, **more)


def edges(nodes: int, count: int, seed: int) -> Tensor:
    """Both directions of a ring through all nodes, and of some more edges."""
    ring = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
    more = integers(0, nodes, 2, count, seed=seed)
    one_way = torch.cat([ring, more], 1)
    return torch.cat([one_way, one_way.flip(0)], 1)


def one_graph() -> Data:
    """A graph whose nodes have classes, of which two thirds are known."""
    data = Data(x=normal(NODES, FEATURES), edge_index=edges(NODES, 8, 1), y=classes(NODES, 3))
    data.train_mask = torch.arange(NODES) % 3 != 2
    return data


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


def known_nodes(model: nn.Module, data: Any) -> Tensor:
    """Cross entropy of the nodes whose class is known."""
    return F.cross_entropy(model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask])


def known_nodes_log(model: nn.Module, data: Any) -> Tensor:
    """The same with log probabilities."""
    out = F.log_softmax(model(data.x, data.edge_index), dim=-1)
    return F.nll_loss(out[data.train_mask], data.y[data.train_mask])


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
    """By what is learned."""
    yield from nodes()
    yield from graphs()
    yield from links()
    yield from hetero()
    yield from points()


def nodes() -> Iterator[Program]:
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
    yield program("APPNP", Propagated, one_graph, known_nodes, 0.1, labels, **fast)


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


def graphs() -> Iterator[Program]:
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
    yield program("GPSConv", Mixed, many_graphs, graph_classes, 0.05, "labels attention norm batchnorm residual")
    yield program("TopKPooling", Picked, many_graphs, graph_classes, 0.1, "labels", **fast)


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


def links() -> Iterator[Program]:
    """Edges are foreseen, from the graph without them or from a knowledge graph."""
    yield program("GAE", lambda: gnn.GAE(gnn.GCN(FEATURES, 32, 2, 16)), link_data, reconstruction, 0.8, "", lr=1e-2)
    yield program(
        "VGAE",
        lambda: gnn.VGAE(TwoHeads()),
        link_data,
        variational,
        1.2,
        "terms stochastic",
        lr=1e-2,
        given={"stochastic": True},
    )
    yield program("ComplEx", lambda: gnn.ComplEx(10, 3, 16), triples, knowledge, 0.05, "embedding tuple", lr=1e-2)
    yield program("LightGCN", lambda: gnn.LightGCN(12, 16, 2), ranked, ranking, 0.1, "embedding", lr=1e-2, steps=300)


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


def hetero() -> Iterator[Program]:
    """Several kinds of nodes and edges, as dictionaries."""
    yield program("HeteroConv", Kinds, several_kinds, kinds_loss, 0.05, "labels dict", lr=1e-2)
    yield program("RGCNConv", Relational, several_relations, relations_loss, 0.05, "labels", lr=1e-2)
    yield program("HGTConv", HeteroAttention, several_kinds, kinds_loss, 0.05, "labels dict attention", lr=1e-2)


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


def points() -> Iterator[Program]:
    """Clouds of points, and molecules."""
    yield program("PointNetConv", PointNet, clouds, cloud_loss, 0.05, "labels points", lr=3e-3)
    yield program("EdgeConv", Dynamic, clouds, cloud_loss, 0.05, "labels points", lr=3e-3)
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
