"""nflows: flows out of transforms, and densities by a mixture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from nflows import distributions, flows, transforms
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal


def points() -> dict[str, Tensor]:
    """Points near two arcs, and a condition for each that says which."""
    angle = torch.linspace(0, torch.pi, 32)
    upper, lower = torch.stack([angle.cos(), angle.sin()], -1), torch.stack([1 - angle.cos(), 0.5 - angle.sin()], -1)
    which = torch.cat([torch.zeros(32, 1), torch.ones(32, 1)])
    return {"x": torch.cat([upper, lower]) + 0.1 * normal(64, 2), "which": which}


def likelihood(model: Any, batch: Any) -> Tensor:
    """The negative log likelihood."""
    loss: Tensor = -model.log_prob(batch["x"]).mean()
    return loss


def conditional(model: Any, batch: Any) -> Tensor:
    """The same under the condition."""
    loss: Tensor = -model.log_prob(batch["x"], context=batch["which"]).mean()
    return loss


def autoregressive() -> nn.Module:
    """Masked autoregressive layers with permutations and norms between them."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [transforms.ReversePermutation(2), transforms.MaskedAffineAutoregressiveTransform(2, 32)]
    return flows.Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([2]))


def splines() -> nn.Module:
    """Spline layers that read the condition."""
    layers = [
        transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            2, 32, context_features=1, num_bins=6, tails="linear", tail_bound=3.0
        )
        for _ in range(2)
    ]
    return flows.Flow(
        transforms.CompositeTransform(layers), distributions.ConditionalDiagonalNormal([2], nn.Linear(1, 4))
    )


def programs() -> Iterator[Program]:
    """With and without a condition."""
    shared: dict[str, Any] = {"given": {"unbounded": True}, "lr": 3e-3}
    yield Program(
        "nflows/MaskedAffineAutoregressiveTransform",
        "nflows",
        autoregressive,
        points,
        likelihood,
        1.4,
        traits=frozenset(["flow", "dict", "causal"]),
        **shared,
    )
    yield Program(
        "nflows/MaskedPiecewiseRationalQuadratic",
        "nflows",
        splines,
        points,
        conditional,
        0.8,
        traits=frozenset(["flow", "dict"]),
        **shared,
    )
