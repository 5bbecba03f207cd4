"""spikingjelly: neurons that fire, step by step and all steps at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, normal

STEPS = 6


class Rates(nn.Module):
    """A network that is called once for each step; how often its last neurons fired."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Rates of shape (batch, classes); the neurons begin at rest."""
        functional.reset_net(self.body)
        return torch.stack([self.body(x) for _ in range(STEPS)]).mean(0)


class AtOnce(nn.Module):
    """Images over all steps in one call, with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layer.Conv2d(3, 16, 3, padding=1, bias=False), layer.BatchNorm2d(16), fires(neuron.LIFNode),
            layer.AvgPool2d(4), layer.Flatten(), layer.Linear(64, 3),
        )  # fmt: skip
        functional.set_step_mode(self.body, "m")

    def forward(self, x: Tensor) -> Tensor:
        """Mean potentials of shape (batch, classes)."""
        functional.reset_net(self.body)
        out: Tensor = self.body(x.unsqueeze(0).repeat(STEPS, 1, 1, 1, 1)).mean(0)
        return out


def fires(kind: Callable[..., nn.Module], **settings: Any) -> nn.Module:
    """Neurons of one kind, with a smooth gradient."""
    return kind(surrogate_function=surrogate.ATan(), **settings)


def dense(kind: Callable[..., nn.Module], last: bool) -> nn.Module:
    """Two layers, of which the last fires too or only tells."""
    parts = [layer.Linear(8, 48), fires(kind), layer.Linear(48, 3)]
    return Rates(nn.Sequential(*parts, fires(kind)) if last else nn.Sequential(*parts))


def entropy(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of rates."""
    return F.cross_entropy(model(batch[0]), batch[1])


def rates(model: nn.Module, batch: Any) -> Tensor:
    """The squared distance between rates and the class as 0 and 1."""
    return F.mse_loss(model(batch[0]), F.one_hot(batch[1], 3).float())


def programs() -> Iterator[Program]:
    """Numbers, then images."""
    library, labels = "spikingjelly", frozenset(["labels", "tuple", "spiking"])
    numbers = lambda: (2 * normal(6, 8), classes(6, 3))  # noqa: E731
    yield Program(
        f"{library}/LIFNode", library, lambda: dense(neuron.LIFNode, True), numbers, rates, 0.05, lr=1e-2, traits=labels
    )
    yield Program(
        f"{library}/ParametricLIFNode", library, lambda: dense(neuron.ParametricLIFNode, False), numbers, entropy, 0.02,
        lr=1e-2, traits=labels,
    )  # fmt: skip
    yield Program(
        f"{library}/IFNode",
        library,
        lambda: dense(neuron.IFNode, False),
        numbers,
        entropy,
        0.02,
        lr=1e-2,
        traits=labels,
    )
    yield Program(
        f"{library}/Conv2d-steps", library, AtOnce, lambda: (normal(6, 3, 8, 8), classes(6, 3)), entropy, 0.05, lr=1e-2,
        traits=labels | {"image", "conv", "norm", "batchnorm"},
    )  # fmt: skip
