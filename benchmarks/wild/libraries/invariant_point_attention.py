"""invariant-point-attention: residues with frames, whose attention does not depend on how the whole is turned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from invariant_point_attention import InvariantPointAttention, IPABlock
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, integers, normal, padding_mask

LIBRARY = "invariant_point_attention"
TRAITS = frozenset(["attention", "norm", "residual", "geometry", "dict"])


class Residues(nn.Module):
    """Layers over residues with frames, and a linear layer on what they make of each."""

    def __init__(self, out: int, pairs: bool = True, tokens: bool = False, layer: Any = IPABlock) -> None:
        super().__init__()
        self.enter: nn.Module = nn.Embedding(20, 16) if tokens else nn.Linear(6, 16)
        more = {"pairwise_repr_dim": 8} if pairs else {"require_pairwise_repr": False}
        self.layers = nn.ModuleList(
            layer(dim=16, heads=2, scalar_key_dim=8, scalar_value_dim=8, **more) for _ in range(2)
        )
        self.leave = nn.Linear(16, out)

    def forward(self, x: Tensor, mask: Tensor | None = None, **frames: Tensor) -> Tensor:
        """What is told of each residue."""
        x = self.enter(x)
        for layer in self.layers:
            x = layer(x, mask=None if mask is None else mask.bool(), **frames)
        out: Tensor = self.leave(x)
        return out


def frames(count: int, length: int, pairs: bool) -> dict[str, Tensor]:
    """A rotation and a place for each residue, and with ``pairs`` what is known of each two of them."""
    rotations = torch.linalg.qr(normal(count, length, 3, 3, seed=2))[0]
    rotations = rotations * torch.linalg.det(rotations)[..., None, None]
    found = {"rotations": rotations, "translations": normal(count, length, 3, seed=3)}
    return {**found, "pairwise_repr": normal(count, length, length, 8, seed=4)} if pairs else found


def told(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of what is told of each residue."""
    return F.mse_loss(model(**{name: each for name, each in batch.items() if name != "y"}), batch["y"])


def masked(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the residues that there are."""
    logits = model(**{name: each for name, each in batch.items() if name != "y"})
    return F.cross_entropy(logits.flatten(0, 1), batch["y"].flatten())


def of_chain(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the class of each chain, from the mean over its residues."""
    return F.cross_entropy(model(**{name: each for name, each in batch.items() if name != "y"}).mean(1), batch["y"])


def chains() -> dict[str, Tensor]:
    """Chains of amino acids, two of which end early, and a class for each residue."""
    mask = padding_mask([6, 6, 4, 5], 6)
    tags = integers(0, 3, 4, 6, seed=5).masked_fill(mask == 0, -100)
    return {"x": integers(0, 20, 4, 6), "mask": mask, **frames(4, 6, False), "y": tags}


def programs() -> Iterator[Program]:
    """Numbers of residues, classes of padded ones, and of whole chains."""
    yield Program(
        f"{LIBRARY}/IPABlock", LIBRARY, lambda: Residues(3),
        lambda: {"x": normal(4, 6, 6), **frames(4, 6, True), "y": normal(4, 6, 3, seed=1)}, told, 0.05, lr=3e-3,
        traits=TRAITS | {"regression"},
    )  # fmt: skip
    yield Program(
        f"{LIBRARY}/IPABlock-tokens", LIBRARY, lambda: Residues(3, pairs=False, tokens=True), chains, masked, 0.05,
        lr=5e-3, traits=TRAITS | {"ids", "attention_mask", "padding", "labels", "embedding"},
    )  # fmt: skip
    yield Program(
        f"{LIBRARY}/InvariantPointAttention", LIBRARY,
        lambda: Residues(3, layer=InvariantPointAttention),
        lambda: {"x": normal(6, 5, 6), **frames(6, 5, True), "y": classes(6, 3)}, of_chain, 0.05, lr=5e-3,
        traits=(TRAITS - {"norm", "residual"}) | {"labels"},
    )  # fmt: skip
