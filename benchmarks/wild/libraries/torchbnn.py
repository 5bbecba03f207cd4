"""torchbnn: weights that are drawn in every call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torchbnn as bnn
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, normal


def dense() -> nn.Module:
    """Two layers of drawn weights."""
    layer = {"prior_mu": 0.0, "prior_sigma": 0.1}
    return nn.Sequential(
        bnn.BayesLinear(in_features=6, out_features=48, **layer), nn.ReLU(),
        bnn.BayesLinear(in_features=48, out_features=3, **layer),
    )  # fmt: skip


def convolutional() -> nn.Module:
    """A convolution and a batch norm of drawn weights."""
    layer = {"prior_mu": 0.0, "prior_sigma": 0.05}
    return nn.Sequential(
        bnn.BayesConv2d(in_channels=3, out_channels=16, kernel_size=3, stride=2, **layer),
        bnn.BayesBatchNorm2d(num_features=16, **layer), nn.ReLU(), nn.Flatten(),
        bnn.BayesLinear(in_features=144, out_features=3, **layer),
    )  # fmt: skip


def evidence(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy, and a little of the divergence from the prior."""
    divergence = bnn.BKLLoss(reduction="mean", last_layer_only=False)(model)
    loss: Tensor = F.cross_entropy(model(batch[0]), batch[1]) + 0.01 * divergence.sum()
    return loss


def programs() -> Iterator[Program]:
    """Numbers, then images."""
    given = {"stochastic": True}
    yield Program(
        "torchbnn/BayesLinear", "torchbnn", dense, lambda: (normal(9, 6), classes(9, 3)), evidence, 0.1, lr=1e-2,
        given=given, traits=frozenset(["labels", "terms", "tuple", "random"]),
    )  # fmt: skip
    yield Program(
        "torchbnn/BayesConv2d", "torchbnn", convolutional, lambda: (normal(6, 3, 8, 8), classes(6, 3)), evidence, 0.1,
        lr=1e-2, given=given, traits=frozenset(["image", "conv", "norm", "labels", "terms", "tuple", "random"]),
    )  # fmt: skip
