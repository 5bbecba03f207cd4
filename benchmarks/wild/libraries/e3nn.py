"""e3nn: networks whose outputs turn with their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from e3nn import nn as enn
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal, squared_error

POINTS = 8


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    traits: str,
    **more: Any,
) -> Program:
    """An equivariant network."""
    settings: dict[str, Any] = {"lr": 1e-2, **more}
    traits_of = frozenset(["equivariant", *traits.split()])
    return Program(f"e3nn/{name}", "e3nn", model, batch, loss, limit, traits=traits_of, **settings)


class Product(nn.Module):
    """A tensor product of the input with itself, and a linear layer to scalars."""

    def __init__(self) -> None:
        super().__init__()
        self.product = o3.FullyConnectedTensorProduct("2x0e+1x1o", "2x0e+1x1o", "16x0e+8x1o")
        self.head = o3.Linear("16x0e+8x1o", "3x0e")

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out: Tensor = self.head(self.product(x, x))
        return out


class Gated(nn.Module):
    """Vectors that are gated by scalars; at the end a scalar and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = enn.Gate("16x0e", [torch.tanh], "8x0e", [torch.sigmoid], "8x1o")
        self.square = o3.FullyConnectedTensorProduct("4x0e+3x1o", "4x0e+3x1o", self.gate.irreps_in)
        self.norm = enn.BatchNorm(self.gate.irreps_out)
        self.head = o3.Linear(self.gate.irreps_out, "1x0e+1x1o")

    def forward(self, x: Tensor) -> Tensor:
        """A scalar and a vector for each sample."""
        out: Tensor = self.head(self.norm(self.gate(self.square(x, x))))
        return out


class Convolution(nn.Module):
    """Messages of neighbours, weighted by a network of their distance, as in the convolution of e3nn's guide."""

    def __init__(self) -> None:
        super().__init__()
        self.harmonics = o3.Irreps.spherical_harmonics(2)
        self.first = o3.FullyConnectedTensorProduct("4x0e", self.harmonics, "8x0e+4x1o", shared_weights=False)
        self.radial = enn.FullyConnectedNet([8, 16, self.first.weight_numel], torch.nn.functional.silu)
        self.head = enn.FullyConnectedNet([8, 32, 1], torch.tanh)

    def forward(self, features: Tensor, position: Tensor, edges: Tensor) -> Tensor:
        """The energy of the whole."""
        source, target = edges
        between = position[source] - position[target]
        shape = o3.spherical_harmonics(self.harmonics, between, normalize=True, normalization="component")
        length = soft_one_hot_linspace(between.norm(dim=1), 0.0, 5.0, 8, basis="smooth_finite", cutoff=True)
        message = self.first(features[source], shape, self.radial(length * 8**0.5))
        nodes = message.new_zeros(len(position), message.shape[1]).index_add(0, target, message) / POINTS**0.5
        return self.head(nodes[:, :8])[:, 0]


def cloud() -> dict[str, Tensor]:
    """Points with features, the edges between all of them, and a number for each."""
    edges = (~torch.eye(POINTS, dtype=torch.bool)).nonzero().T
    return {
        "features": normal(POINTS, 4),
        "position": normal(POINTS, 3, seed=1),
        "edges": edges,
        "energy": normal(POINTS, seed=2),
    }


def energies(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of the numbers."""
    return F.mse_loss(model(batch["features"], batch["position"], batch["edges"]), batch["energy"])


class Norms(nn.Module):
    """Scalars and the harmonics of a vector; the norms of what becomes of them are classified."""

    def __init__(self) -> None:
        super().__init__()
        irreps = o3.Irreps("8x0e+8x1o+8x2e")
        self.mix = o3.FullyConnectedTensorProduct("4x0e", "1x0e+1x1o+1x2e", irreps)
        self.activation, self.norm = enn.NormActivation(irreps, torch.sigmoid, bias=True), o3.Norm(irreps)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        shape = o3.spherical_harmonics([0, 1, 2], x[:, 4:], normalize=True)
        out: Tensor = self.head(self.norm(self.activation(self.mix(x[:, :4], shape))))
        return out


def programs() -> Iterator[Program]:
    """Products, gates, convolutions and norms."""
    yield program(
        "FullyConnectedTensorProduct",
        Product,
        lambda: (normal(6, 5), classes(6, 3)),
        cross_entropy,
        0.05,
        "labels",
        lr=5e-2,
    )
    yield program(
        "Gate",
        Gated,
        lambda: (normal(6, 13), normal(6, 4, seed=1)),
        squared_error,
        0.01,
        "regression norm batchnorm",
        steps=400,
    )
    yield program("FullyConnectedNet-convolution", Convolution, cloud, energies, 0.02, "regression graph points dict")
    yield program(
        "NormActivation",
        Norms,
        lambda: (normal(6, 7), classes(6, 3)),
        cross_entropy,
        0.12,
        "labels",
    )
