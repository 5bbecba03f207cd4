"""pyro: guides for models that draw, flows with conditions, Gaussian processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.contrib import gp
from pyro.distributions import transforms
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, normal


class Flow(nn.Module):
    """Transforms of a normal distribution."""

    def __init__(self, parts: list[Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The log likelihood of each point."""
        base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
        parts: list[Any] = [part if condition is None else part.condition(condition) for part in self.parts]
        for part in parts:
            part.clear_cache()
        out: Tensor = dist.TransformedDistribution(base, parts).log_prob(x)
        return out


class Autoencoder(nn.Module):
    """An encoder that is the guide, and a decoder that is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 32), nn.Softplus(), nn.Linear(32, 4))
        self.decoder = nn.Sequential(nn.Linear(2, 32), nn.Softplus(), nn.Linear(32, 8))

    def model(self, x: Tensor) -> None:
        """Draws a code, and data around what is decoded of it."""
        with pyro.plate("data", len(x)):
            code = pyro.sample("code", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(code), 0.3).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Draws a code of what the encoder tells."""
        with pyro.plate("data", len(x)):
            mean, spread = self.encoder(x).chunk(2, -1)
            pyro.sample("code", dist.Normal(mean, spread.exp()).to_event(1))

    def forward(self, x: Tensor) -> Tensor:
        """The negative evidence bound of one draw, for each number."""
        loss: Tensor = TraceMeanField_ELBO().differentiable_loss(self.model, self.guide, x) / x.numel()
        return loss


class Process(nn.Module):
    """A Gaussian process, which is given its data; its parameters stay its own."""

    def __init__(self) -> None:
        super().__init__()
        with pyro.settings.context(module_local_params=True):
            empty = torch.zeros(1)
            self.process = gp.models.GPRegression(empty, empty, gp.kernels.RBF(1), noise=torch.tensor(0.5))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The negative log evidence, for each point."""
        with pyro.settings.context(module_local_params=True):
            self.process.set_data(x, y)
            loss: Tensor = Trace_ELBO().differentiable_loss(self.process.model, self.process.guide) / len(x)
        return loss


def likelihood(model: nn.Module, batch: Any) -> Tensor:
    """How unlikely the points are."""
    value: Tensor = -model(*batch).mean()
    return value


def moons() -> tuple[Tensor]:
    """Points around two arcs."""
    angle = torch.linspace(0, 3.1, 32)
    upper, lower = torch.stack([angle.cos(), angle.sin()], 1), torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    return (torch.cat([upper, lower]) + 0.05 * normal(64, 2),)


def curve() -> tuple[Tensor, Tensor]:
    """Points of a wave, and some noise."""
    x = torch.linspace(0, 1, 16)
    return x, (6 * x).sin() + 0.05 * normal(16)


def conditioned() -> tuple[Tensor, Tensor]:
    """Points around the centre of their class, and the class as 0 and 1."""
    condition = nn.functional.one_hot(classes(48, 3), 3).float()
    return condition @ normal(3, 2, seed=1) + 0.2 * normal(48, 2), condition


def programs() -> Iterator[Program]:
    """Flows, an autoencoder, processes."""
    given = {"unbounded": True}
    flow = frozenset(["flow", "tuple"])
    yield Program(
        "pyro/affine_coupling",
        "pyro",
        lambda: Flow(
            [transforms.affine_coupling(2, [24]), transforms.Householder(2), transforms.affine_coupling(2, [24])]
        ),
        moons,
        likelihood,
        1.9,
        lr=1e-2,
        given=given,
        traits=flow,
    )
    yield Program(
        "pyro/spline_autoregressive",
        "pyro",
        lambda: Flow([transforms.spline_autoregressive(2, [24], count_bins=4)]),
        moons,
        likelihood,
        1.9,
        lr=1e-2,
        given=given,
        traits=flow,
    )
    yield Program(
        "pyro/conditional_affine_autoregressive",
        "pyro",
        lambda: Flow([transforms.conditional_affine_autoregressive(2, 3, [24])]),
        conditioned,
        likelihood,
        1.5,
        lr=1e-2,
        given=given,
        traits=flow,
    )
    yield from inferred()


def inferred() -> Iterator[Program]:
    """An autoencoder and a process, by their evidence."""
    given = {"unbounded": True}
    yield Program(
        "pyro/TraceMeanField_ELBO",
        "pyro",
        Autoencoder,
        lambda: normal(8, 2) @ normal(2, 8, seed=1),
        lambda model, batch: model(batch),
        2.0,
        lr=1e-2,
        given={**given, "stochastic": True},
        traits=frozenset(["random"]),
    )
    yield Program(
        "pyro/GPRegression",
        "pyro",
        Process,
        curve,
        lambda model, batch: model(*batch),
        0.5,
        lr=3e-2,
        given=given,
        traits=frozenset(["process"]),
    )
