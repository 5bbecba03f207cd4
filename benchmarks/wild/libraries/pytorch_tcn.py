"""pytorch-tcn: dilated convolutions over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytorch_tcn import TCN
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal, squared_error


class Last(nn.Module):
    """A class of a series, read at its last moment."""

    def __init__(self) -> None:
        super().__init__()
        self.body = TCN(4, [16, 16], kernel_size=3, dropout=0.05, use_skip_connections=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each series."""
        out: Tensor = self.head(self.body(x)[:, :, -1])
        return out


def conditioned(model: nn.Module, batch: Any) -> Tensor:
    """The squared error, under embeddings that are added at every moment."""
    return F.mse_loss(model(batch["x"], embeddings=[batch["static"]]), batch["y"])


def programs() -> Iterator[Program]:
    """Series by the past alone, whole series, and with what is known of each."""
    library = "pytorch_tcn"
    series = lambda: (normal(4, 4, 16), normal(4, 2, 16, seed=1))  # noqa: E731
    yield Program(
        f"{library}/TCN-causal",
        library,
        lambda: TCN(4, [24, 24], kernel_size=3, dropout=0.0, output_projection=2),
        series,
        squared_error,
        0.05,
        lr=1e-2,
        traits=frozenset(["conv", "norm", "residual", "regression", "tuple", "causal"]),
    )
    yield Program(
        f"{library}/TCN-batch_norm",
        library,
        lambda: TCN(
            4,
            [24, 24],
            kernel_size=3,
            dropout=0.0,
            causal=False,
            use_norm="batch_norm",
            output_projection=2,
            activation="gelu",
        ),
        series,
        squared_error,
        0.05,
        lr=1e-2,
        traits=frozenset(["conv", "norm", "batchnorm", "residual", "regression", "tuple"]),
    )
    yield Program(
        f"{library}/TCN-classes",
        library,
        Last,
        lambda: (normal(6, 4, 16), classes(6, 3)),
        cross_entropy,
        0.05,
        lr=1e-2,
        given={"stochastic": True},
        traits=frozenset(["conv", "norm", "residual", "labels", "tuple", "dropout"]),
    )
    yield Program(
        f"{library}/TCN-embeddings",
        library,
        lambda: TCN(
            4, [24, 24], kernel_size=3, dropout=0.0, embedding_shapes=[(3,)], output_projection=2, use_gate=True
        ),
        lambda: {"x": normal(4, 4, 16), "y": normal(4, 2, 16, seed=1), "static": normal(4, 3, seed=2)},
        conditioned,
        0.1,
        lr=1e-2,
        given={"unused": ["network.*.embedding_projection_2.*"]},  # of another way to join
        traits=frozenset(["conv", "norm", "residual", "regression", "dict", "causal"]),
    )
