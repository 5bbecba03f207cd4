"""torchcde: controlled differential equations, on paths through what was observed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torchcde
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal, squared_error

LENGTH = 8


class Field(nn.Module):
    """How the state answers to the path."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 24), nn.Linear(24, 8 * 3)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """A matrix for each state."""
        out: Tensor = self.second(self.first(z).relu()).tanh().view(*z.shape[:-1], 8, 3)
        return out


class Controlled(nn.Module):
    """A state that is driven by a path, and what is read of it."""

    def __init__(self, path: Any, outputs: int, every: bool) -> None:
        super().__init__()
        self.path, self.every = path, every
        self.start, self.field, self.read = nn.Linear(3, 8), Field(), nn.Linear(8, outputs)

    def forward(self, coefficients: Tensor) -> Tensor:
        """Of the last state, or of all."""
        path = self.path(coefficients)
        state = self.start(path.evaluate(path.interval[0]))
        moments = path.grid_points if self.every else path.interval
        states = torchcde.cdeint(
            path, self.field, state, moments, method="rk4", options={"step_size": 1.0}, adjoint=False
        )
        out: Tensor = self.read(states if self.every else states[:, -1])
        return out


def observed() -> Tensor:
    """Six series of two numbers, beside their time."""
    time = torch.linspace(0, 1, LENGTH).expand(6, LENGTH)[..., None]
    return torch.cat([time, normal(6, LENGTH, 2)], -1)


def programs() -> Iterator[Program]:
    """By the path, with one answer and with many."""
    hermite = torchcde.hermite_cubic_coefficients_with_backward_differences
    traits = "ode tuple"
    for name, path, coefficients in (
        ("CubicSpline", torchcde.CubicSpline, hermite),
        ("LinearInterpolation", torchcde.LinearInterpolation, torchcde.linear_interpolation_coeffs),
    ):
        yield Program(
            f"torchcde/{name}", "torchcde", lambda path=path: Controlled(path, 3, False),
            lambda coefficients=coefficients: (coefficients(observed()), classes(6, 3)), cross_entropy, 0.05, lr=1e-2,
            traits=frozenset(f"{traits} labels".split()),
        )  # fmt: skip
    yield Program(
        "torchcde/CubicSpline-every", "torchcde", lambda: Controlled(torchcde.CubicSpline, 1, True),
        lambda: (hermite(observed()), observed()[..., 1:2].cumsum(1) / 3), squared_error, 0.1, lr=1e-2,
        traits=frozenset(f"{traits} regression".split()),
    )  # fmt: skip
