"""egnn-pytorch: graphs in space, whose places move with the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from egnn_pytorch import EGNN, EGNN_Network
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, normal, padding_mask


def clouds() -> dict[str, Tensor]:
    """Atoms by number and place, padded, with a number for each molecule."""
    return {
        "atoms": integers(0, 8, 3, 6),
        "places": normal(3, 6, 3, seed=1),
        "mask": padding_mask([6, 5, 4], 6).bool(),
        "energy": normal(3, seed=2),
    }


class Energy(nn.Module):
    """A network of two layers, and the mean over the atoms that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.network = EGNN_Network(num_tokens=8, dim=16, depth=2, norm_coors=True, coor_weights_clamp_value=2.0)
        self.head = nn.Linear(16, 1)

    def forward(self, atoms: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        """A number for each molecule."""
        features, _ = self.network(atoms, places, mask=mask)
        mean = (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        out: Tensor = self.head(mean)[:, 0]
        return out


def energies(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of the numbers."""
    return F.mse_loss(model(batch["atoms"], batch["places"], batch["mask"]), batch["energy"])


class Moved(nn.Module):
    """Where the points are a moment later."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = EGNN(dim=8, m_dim=32, update_feats=False, soft_edges=True)

    def forward(self, features: Tensor, places: Tensor) -> Tensor:
        """Of the shape of the places."""
        out: Tensor = self.layer(features, places)[1]
        return out


def spread() -> tuple[Tensor, Tensor, Tensor]:
    """Features and places, and the same places drawn to their centre by differing shares."""
    places = normal(2, 5, 3, seed=3)
    share = torch.tensor([0.5, 0.3, 0.4, 0.6, 0.2])[None, :, None]
    return normal(2, 5, 8), places, places - share * (places - places.mean(1, keepdim=True))


def programs() -> Iterator[Program]:
    """Numbers, then places."""
    traits = frozenset(["graph", "points", "regression", "equivariant"])
    yield Program(
        "egnn_pytorch/EGNN_Network",
        "egnn_pytorch",
        Energy,
        clouds,
        energies,
        0.02,
        lr=3e-3,
        traits=traits | {"dict", "embedding", "padding", "ids"},
        given={
            "unused": ["network.layers.1.1.coors_mlp.*", "network.layers.1.1.coors_norm.*"]
        },  # the last places are not read
    )
    yield Program(
        "egnn_pytorch/EGNN",
        "egnn_pytorch",
        Moved,
        spread,
        lambda model, batch: F.mse_loss(model(batch[0], batch[1]), batch[2]),
        0.02,
        lr=3e-3,
        traits=traits | {"tuple"},
    )
