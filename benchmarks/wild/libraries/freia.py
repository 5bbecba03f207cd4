"""FrEIA: invertible graphs, of vectors and of images, with a condition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import FrEIA.framework as framework
import FrEIA.modules as modules
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, normal, uniform


def dense(inputs: int, outputs: int) -> nn.Module:
    """The network inside of a coupling."""
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def convolution(inputs: int, outputs: int) -> nn.Module:
    """The same for images."""
    return nn.Sequential(nn.Conv2d(inputs, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, outputs, 3, padding=1))


def sequence() -> nn.Module:
    """Couplings of four numbers, conditioned by a class."""
    chain = framework.SequenceINN(4)
    for _ in range(4):
        chain.append(modules.AllInOneBlock, cond=0, cond_shape=(3,), subnet_constructor=dense, reverse_permutation=True)
    return chain


def images() -> nn.Module:
    """Couplings of images, wavelets between them."""
    nodes = [framework.InputNode(1, 8, 8)]
    nodes.append(framework.Node(nodes[-1], modules.HaarDownsampling, {}))
    for _ in range(3):
        nodes.append(
            framework.Node(nodes[-1], modules.GLOWCouplingBlock, {"subnet_constructor": convolution, "clamp": 1.2})
        )
        nodes.append(framework.Node(nodes[-1], modules.PermuteRandom, {"seed": 0}))
    nodes.append(framework.OutputNode(nodes[-1]))
    return framework.GraphINN(nodes)


def points() -> tuple[Tensor, Tensor]:
    """Vectors around the centre of their class, and the class as one of three."""
    one_hot = F.one_hot(classes(48, 3), 3).float()
    return one_hot @ normal(3, 4, seed=1) + 0.3 * normal(48, 4), one_hot


def conditioned(model: nn.Module, batch: Any) -> Tensor:
    """The negative log likelihood for each number, less a constant."""
    code, volume = model(batch[0], c=[batch[1]])
    return (0.5 * code.pow(2).sum(1) - volume).mean() / 4


def likelihood(model: nn.Module, batch: Any) -> Tensor:
    """The same for images."""
    code, volume = model(batch)
    return (0.5 * code.pow(2).flatten(1).sum(1) - volume).mean() / 64


def programs() -> Iterator[Program]:
    """Vectors, then images."""
    given = {"unbounded": True}
    yield Program(
        "freia/SequenceINN",
        "freia",
        sequence,
        points,
        conditioned,
        -0.2,
        given=given,
        traits=frozenset(["flow", "tuple"]),
    )
    yield Program(
        "freia/GraphINN",
        "freia",
        images,
        lambda: F.interpolate(uniform(4, 1, 3, 3), (8, 8), mode="bilinear") + 0.05 * normal(4, 1, 8, 8),
        likelihood,
        -1.0,
        given=given,
        traits=frozenset(["flow", "image", "conv"]),
    )
