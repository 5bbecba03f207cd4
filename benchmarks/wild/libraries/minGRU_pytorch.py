# ruff: noqa: N999 - as the package is called
"""minGRU-pytorch: recurrent layers whose gates do not read the state, as a scan over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minGRU_pytorch import minGRU
from minGRU_pytorch.minLM import minLM
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, integers, normal

LIBRARY = "minGRU_pytorch"
TRAITS = frozenset(["ids", "causal", "norm", "residual", "embedding", "recurrent", "dict"])


class Series(nn.Module):
    """A class of a series, read at its last moment."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.cell, self.head = nn.Linear(4, 16), minGRU(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each series."""
        out: Tensor = self.head(self.cell(self.enter(x))[:, -1])
        return out


def own(model: nn.Module, batch: Any) -> Tensor:
    """The loss that the model returns: every token from those before it."""
    loss: Tensor = model(batch["ids"], return_loss=True)
    return loss


def ids() -> dict[str, Tensor]:
    """Sequences that differ from the first token on."""
    found = integers(0, 20, 4, 10)
    found[:, 0] = classes(4, 4)
    return {"ids": found}


def programs() -> Iterator[Program]:
    """Language models of both cells, with a convolution and without, and a series."""
    small: dict[str, Any] = {"num_tokens": 20, "dim": 32, "depth": 2, "ff_mult": 2}
    yield Program(f"{LIBRARY}/minLM", LIBRARY, lambda: minLM(**small), ids, own, 0.1, lr=5e-3, traits=TRAITS)
    yield Program(
        f"{LIBRARY}/minLM-lstm", LIBRARY, lambda: minLM(**small, use_lstm=True), ids, own, 0.1, lr=5e-3, traits=TRAITS
    )
    yield Program(
        f"{LIBRARY}/minLM-conv", LIBRARY, lambda: minLM(**small, enable_conv=True), ids, own, 0.1, lr=5e-3,
        traits=TRAITS | {"conv"},
    )  # fmt: skip
    yield Program(
        f"{LIBRARY}/minGRU", LIBRARY, Series, lambda: (normal(6, 8, 4), classes(6, 3)), cross_entropy, 0.05, lr=5e-3,
        traits=frozenset(["recurrent", "labels", "tuple", "series"]),
    )  # fmt: skip
