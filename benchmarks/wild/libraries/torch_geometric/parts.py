"""A graph whose nodes have classes, and what all programs of graphs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

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
