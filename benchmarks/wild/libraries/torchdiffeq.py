"""torchdiffeq: networks whose layers are differential equations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal

TIMES = torch.linspace(0.0, 2.0, 10)


class Rate(nn.Module):
    """How fast the state changes."""

    def __init__(self, width: int, hidden: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, width))

    def forward(self, time: Tensor, state: Tensor) -> Tensor:
        """Of the shape of the state."""
        out: Tensor = self.body(state)
        return out


class Classifier(nn.Module):
    """A stem, an equation from time 0 to 1, and a head."""

    def __init__(self, method: str, adjoint: bool) -> None:
        super().__init__()
        self.stem, self.rate, self.head = nn.Linear(6, 16), Rate(16), nn.Linear(16, 3)
        self.method, self.solve = method, torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        times = torch.tensor([0.0, 1.0])
        state = self.solve(self.rate, self.stem(x), times, method=self.method, rtol=1e-3, atol=1e-4)[-1]
        out: Tensor = self.head(state)
        return out


class Trajectory(nn.Module):
    """A rate that is fitted to a path, as in the spiral of the library's examples."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = Rate(2)

    def forward(self, start: Tensor, times: Tensor) -> Tensor:
        """The path, of shape (times, 2)."""
        out: Tensor = torchdiffeq.odeint(self.rate, start, times, method="rk4")
        return out


class Latent(nn.Module):
    """A recurrent network that reads a path backwards, and an equation from what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.reader, self.mean = nn.GRU(2, 32, batch_first=True), nn.Linear(32, 8)
        self.rate, self.decoder = Rate(8), nn.Linear(8, 2)

    def forward(self, path: Tensor, times: Tensor) -> Tensor:
        """Paths of shape (batch, times, 2)."""
        _, last = self.reader(path.flip(1))
        states = torchdiffeq.odeint(self.rate, self.mean(last[0]), times, method="midpoint")
        out: Tensor = self.decoder(states).transpose(0, 1)
        return out


class Second(nn.Module):
    """An equation of several states, as a tuple: place and speed."""

    def __init__(self) -> None:
        super().__init__()
        self.force, self.speed = (
            nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1)),
            nn.Parameter(torch.zeros(1)),
        )

    def rate(self, time: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Speed and force."""
        place, speed = state
        return speed, self.force(torch.cat([place, speed], -1))

    def forward(self, place: Tensor, times: Tensor) -> Tensor:
        """Places, of shape (times, 1)."""
        return torchdiffeq.odeint(self.rate, (place, self.speed), times, method="rk4")[0]


def spiral() -> dict[str, Tensor]:
    """A path that winds inwards."""
    angle = 2 * TIMES
    path = torch.stack([angle.cos(), angle.sin()], -1) * (-0.3 * TIMES).exp()[:, None]
    return {"start": path[0], "times": TIMES.clone(), "path": path}


def follows(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of the path."""
    return F.mse_loss(model(batch["start"], batch["times"]), batch["path"])


def swing() -> dict[str, Tensor]:
    """A place that swings."""
    path = torch.cos(2 * TIMES)[:, None]
    return {"start": path[0], "times": TIMES.clone(), "path": path}


def paths() -> dict[str, Tensor]:
    """Several paths that wind inwards, from several places."""
    shift = torch.tensor([0.0, 1.0, 2.0, 3.0])
    angle = 2 * TIMES[None] + shift[:, None]
    return {"path": torch.stack([angle.cos(), angle.sin()], -1), "times": TIMES.clone()}


def rebuilds(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of all paths."""
    return F.mse_loss(model(batch["path"], batch["times"]), batch["path"])


def programs() -> Iterator[Program]:
    """Fixed and adaptive steps, with and without the adjoint."""
    labels = frozenset(["labels", "ode"])
    regression = frozenset(["regression", "ode", "dict"])
    for name, method, adjoint in (
        ("odeint-rk4", "rk4", False),
        ("odeint-dopri5", "dopri5", False),
        ("odeint_adjoint", "dopri5", True),
    ):
        yield Program(
            f"torchdiffeq/{name}",
            "torchdiffeq",
            lambda method=method, adjoint=adjoint: Classifier(method, adjoint),
            lambda: (normal(6, 6), classes(6, 3)),
            cross_entropy,
            0.02,
            lr=2e-2,
            steps=60,
            traits=labels,
        )
    yield Program(
        "torchdiffeq/odeint-trajectory", "torchdiffeq", Trajectory, spiral, follows, 0.01, lr=1e-2, traits=regression
    )
    yield Program(
        "torchdiffeq/odeint-latent",
        "torchdiffeq",
        Latent,
        paths,
        rebuilds,
        0.01,
        lr=1e-2,
        traits=regression | {"recurrent"},
    )
    yield Program(
        "torchdiffeq/odeint-tuple", "torchdiffeq", Second, swing, follows, 0.02, lr=1e-2, traits=regression | {"tuple"}
    )
