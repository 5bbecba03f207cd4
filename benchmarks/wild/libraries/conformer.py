"""conformer: convolutions between attention, for speech."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from conformer import Conformer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal


class Recogniser(nn.Module):
    """Spectra to the log probabilities of letters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 32), nn.Linear(32, 6)
        self.body = Conformer(
            dim=32, depth=1, dim_head=16, heads=2, ff_mult=2, conv_expansion_factor=2, conv_kernel_size=7,
            attn_dropout=0.1, ff_dropout=0.1, conv_dropout=0.1,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Of shape (batch, time, letters)."""
        return self.head(self.body(self.stem(x))).log_softmax(-1)


def spoken() -> dict[str, Tensor]:
    """Spectra, and the letters of each with both lengths."""
    return {
        "spectra": normal(2, 20, 8),
        "letters": torch.tensor([[1, 2, 3, 4], [5, 1, 2, 0]]),
        "frames": torch.tensor([20, 16]),
        "lengths": torch.tensor([4, 3]),
    }


def connectionist(model: nn.Module, batch: Any) -> Tensor:
    """The loss of letters whose times nobody knows."""
    told = model(batch["spectra"]).transpose(0, 1)
    return F.ctc_loss(told, batch["letters"], batch["frames"], batch["lengths"])


def programs() -> Iterator[Program]:
    """Speech."""
    traits = frozenset(
        ["audio", "ctc", "dict", "padding", "attention", "conv", "norm", "batchnorm", "residual", "dropout"]
    )
    yield Program(
        "conformer/Conformer",
        "conformer",
        Recogniser,
        spoken,
        connectionist,
        0.02,
        lr=3e-3,
        given={"stochastic": True},
        traits=traits,
    )
