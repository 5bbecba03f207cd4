"""vector-quantize-pytorch: codebooks that follow averages, codebooks that learn, and codes without a book."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from vector_quantize_pytorch import FSQ, GroupedResidualVQ, ResidualVQ, SimVQ, VectorQuantize

from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal

CODES = 16


class AutoEncoder(nn.Module):
    """An encoder, a quantiser and a decoder of sequences."""

    def __init__(self, quantiser: nn.Module, width: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, width))
        self.quantiser = quantiser
        self.decoder = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction, and the loss of the quantiser where it has one."""
        given = self.quantiser(self.encoder(x))
        codes, loss = given[0], given[2] if len(given) == 3 else x.new_zeros(())
        return self.decoder(codes), loss.sum()


def series() -> Tensor:
    """Two sequences of eight vectors each."""
    return normal(2, 8, 8)


def reconstruction(model: nn.Module, x: Tensor) -> Tensor:
    """The squared error, and the loss of the quantiser."""
    restored, loss = model(x)
    return F.mse_loss(restored, x) + loss


def program(name: str, quantiser: Callable[[], nn.Module], limit: float, width: int = 16, **more: Any) -> Program:
    """A quantised autoencoder."""
    traits = frozenset(["regression", "terms", "tuple", "quantised", *more.pop("traits", "").split()])
    return Program(
        f"vector_quantize_pytorch/{name}",
        "vector_quantize_pytorch",
        lambda: AutoEncoder(quantiser(), width),
        series,
        reconstruction,
        limit,
        traits=traits,
        **{"lr": 3e-3, **more},
    )


def programs() -> Iterator[Program]:
    """By where the codes come from."""
    book = {"dim": 16, "codebook_size": CODES}
    yield program("VectorQuantize", lambda: VectorQuantize(**book), 0.1)
    yield program(
        "VectorQuantize-learned", lambda: VectorQuantize(**book, learnable_codebook=True, ema_update=False), 0.5
    )
    yield program("VectorQuantize-kmeans", lambda: VectorQuantize(**book, kmeans_init=True, kmeans_iters=5), 0.05)
    yield program("VectorQuantize-cosine", lambda: VectorQuantize(**book, use_cosine_sim=True, codebook_dim=8), 0.5)
    yield program("VectorQuantize-rotation", lambda: VectorQuantize(**book, rotation_trick=True, heads=2), 0.4)
    yield program("ResidualVQ", lambda: ResidualVQ(**book, num_quantizers=3), 0.12)
    yield program("GroupedResidualVQ", lambda: GroupedResidualVQ(**book, num_quantizers=2, groups=2), 0.12)
    yield program("SimVQ", lambda: SimVQ(dim=16, codebook_size=64), 0.4, steps=400)
    yield program("FSQ", lambda: FSQ(levels=[8, 5, 5], dim=16), 0.2)
