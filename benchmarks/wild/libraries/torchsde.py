"""torchsde: differential equations with noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torchsde
from torch import Tensor, nn

from benchmarks.wild.case import Program

TIMES = torch.linspace(0.0, 1.0, 6)


class Equation(nn.Module):
    """Drift and diffusion, both learned."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self) -> None:
        super().__init__()
        self.drift = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2))
        self.diffusion = nn.Parameter(torch.full((2,), -1.0))

    def f(self, time: Tensor, state: Tensor) -> Tensor:
        """The drift."""
        out: Tensor = self.drift(torch.cat([state, time.expand(len(state), 1)], -1))
        return out

    def g(self, time: Tensor, state: Tensor) -> Tensor:
        """The diffusion."""
        return self.diffusion.exp().expand_as(state)

    def forward(self, start: Tensor, times: Tensor) -> Tensor:
        """Paths of shape (times, batch, 2)."""
        out: Tensor = torchsde.sdeint(self, start, times, dt=0.1, method="euler")
        return out


def paths() -> dict[str, Tensor]:
    """Where sixteen paths begin, and where they are on average later."""
    mean = torch.stack([torch.cos(2 * TIMES), torch.sin(2 * TIMES)], -1)
    return {"start": mean[0].expand(16, 2).clone(), "times": TIMES.clone(), "mean": mean}


def follows(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of every path: noise only does harm."""
    return (model(batch["start"], batch["times"]) - batch["mean"][:, None]).pow(2).mean()


def programs() -> Iterator[Program]:
    """A path that is followed."""
    yield Program(
        "torchsde/sdeint",
        "torchsde",
        Equation,
        paths,
        follows,
        0.03,
        lr=1e-2,
        steps=300,
        given={"stochastic": True},
        traits=frozenset(["regression", "dict", "ode", "stochastic"]),
    )
