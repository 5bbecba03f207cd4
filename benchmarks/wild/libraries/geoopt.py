"""geoopt: parameters that stay on a manifold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import geoopt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal


def riemannian(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Adam along the manifold."""
    return geoopt.optim.RiemannianAdam(parameters, lr=lr)


class Tree(nn.Module):
    """Points of a hyperbolic space for the nodes of a tree."""

    def __init__(self) -> None:
        super().__init__()
        self.ball = geoopt.PoincareBall()
        self.points = geoopt.ManifoldParameter(self.ball.random_normal(7, 3, std=0.3), manifold=self.ball)

    def forward(self, pairs: Tensor) -> Tensor:
        """How far apart the nodes of each pair are."""
        out: Tensor = self.ball.dist(self.points[pairs[:, 0]], self.points[pairs[:, 1]])
        return out


class Rotated(nn.Module):
    """A layer whose weight has orthonormal columns, and a head."""

    def __init__(self) -> None:
        super().__init__()
        stiefel = geoopt.EuclideanStiefel()
        self.weight = geoopt.ManifoldParameter(stiefel.random(16, 6), manifold=stiefel)
        self.bias, self.head = nn.Parameter(torch.zeros(16)), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each vector."""
        out: Tensor = self.head(F.relu(F.linear(x, self.weight, self.bias)))
        return out


class Prototypes(nn.Module):
    """A network, and a direction for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.sphere = geoopt.Sphere()
        self.body = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 8))
        self.directions = geoopt.ManifoldParameter(self.sphere.random_uniform(3, 8), manifold=self.sphere)

    def forward(self, x: Tensor) -> Tensor:
        """Logits by the angle to each direction."""
        return 8 * F.normalize(self.body(x), dim=1) @ self.directions.T


def tree() -> dict[str, Tensor]:
    """All pairs of the seven nodes of a binary tree, and their distance along it."""
    depth, parent = [0, 1, 1, 2, 2, 2, 2], [0, 0, 0, 1, 1, 2, 2]
    pairs, lengths = [], []
    for a in range(7):
        for b in range(a + 1, 7):
            x, y, length = a, b, 0
            while x != y:
                x, y = (parent[x], y) if depth[x] >= depth[y] else (x, parent[y])
                length += 1
            pairs.append((a, b))
            lengths.append(float(length))
    return {"pairs": torch.tensor(pairs), "distance": torch.tensor(lengths)}


def distances(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of distances."""
    return F.mse_loss(model(batch["pairs"]), batch["distance"])


def programs() -> Iterator[Program]:
    """Hyperbolic points, orthonormal weights, directions."""
    vectors = lambda: (normal(9, 6), classes(9, 3))  # noqa: E731
    labels = frozenset(["labels", "tuple", "manifold"])
    yield Program(
        "geoopt/PoincareBall", "geoopt", Tree, tree, distances, 0.2, lr=5e-2, optimizer=riemannian,
        traits=frozenset(["ids", "regression", "dict", "manifold"]),
    )  # fmt: skip
    yield Program(
        "geoopt/Stiefel", "geoopt", Rotated, vectors, cross_entropy, 0.05, lr=3e-2, optimizer=riemannian, traits=labels
    )
    yield Program(
        "geoopt/Sphere",
        "geoopt",
        Prototypes,
        vectors,
        cross_entropy,
        0.05,
        lr=1e-2,
        optimizer=riemannian,
        traits=labels,
    )
