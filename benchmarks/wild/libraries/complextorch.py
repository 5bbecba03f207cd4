"""complextorch: networks of complex numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import complextorch.nn as cnn
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, normal


class Classifier(nn.Module):
    """Two complex layers; the absolute values are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.activation, self.second = cnn.Linear(6, 24), cnn.modReLU(), cnn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Real logits."""
        return 4 * self.second(self.activation(self.first(x))).abs()


class Convolutions(nn.Module):
    """A complex convolution with a norm, and a convolution back to one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.activation = cnn.Conv1d(1, 12, 5, padding=2), cnn.BatchNorm1d(12), cnn.modReLU()
        self.second = cnn.Conv1d(12, 1, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """Complex numbers of the shape of the input."""
        out: Tensor = self.second(self.activation(self.norm(self.first(x))))
        return out


def complex_normal(*shape: int, seed: int = 0) -> Tensor:
    """Complex numbers."""
    return torch.complex(normal(*shape, seed=seed), normal(*shape, seed=seed + 1))


def signals() -> tuple[Tensor, Tensor]:
    """Waves, and the same turned by a phase and half as large."""
    phase = torch.arange(16) * torch.tensor([[0.4], [0.9]])
    wave = torch.polar(torch.ones_like(phase), phase)[:, None]
    return wave, 0.5 * wave * torch.polar(torch.tensor(1.0), torch.tensor(0.7))


def distance(model: nn.Module, batch: Any) -> Tensor:
    """The mean squared distance in the plane."""
    return (model(batch[0]) - batch[1]).abs().pow(2).mean()


def programs() -> Iterator[Program]:
    """Classes, then signals."""
    traits = frozenset(["complex", "tuple"])
    yield Program(
        "complextorch/Linear",
        "complextorch",
        Classifier,
        lambda: (complex_normal(6, 6), classes(6, 3)),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        0.01,
        lr=1e-2,
        traits=traits | {"labels"},
    )
    yield Program(
        "complextorch/Conv1d",
        "complextorch",
        Convolutions,
        signals,
        distance,
        0.01,
        lr=1e-2,
        traits=traits | {"regression", "conv", "norm", "batchnorm"},
    )
