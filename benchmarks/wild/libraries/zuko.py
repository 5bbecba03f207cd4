"""zuko: flows and mixtures with a condition, by maximum likelihood and by variational inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import zuko
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal, uniform

UNBOUNDED = {"unbounded": True}


def program(
    name: str,
    model: Callable[[], nn.Module],
    limit: float,
    batch: Callable[[], Any] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    traits: str = "tuple",
    **more: Any,
) -> Program:
    """A density with a condition: it has no upper bound."""
    return Program(
        f"zuko/{name}",
        "zuko",
        model,
        batch or conditioned,
        loss or likelihood,
        limit,
        traits=frozenset(["flow", *traits.split()]),
        **{"given": UNBOUNDED, "lr": 2e-3, **more},
    )


def conditioned() -> tuple[Tensor, Tensor]:
    """Points of a plane that lie on a circle, where on it the condition says."""
    angle = 6.28 * uniform(64, 1)
    points = torch.cat([angle.cos(), angle.sin()], -1) + 0.1 * normal(64, 2, seed=1)
    return points, torch.cat([angle, angle.sin(), angle.cos()], -1)


def likelihood(model: nn.Module, batch: Any) -> Tensor:
    """The negative log likelihood of points under their conditions."""
    points, condition = batch
    loss: Tensor = -model(condition).log_prob(points).mean()
    return loss


class AutoEncoder(nn.Module):
    """A variational autoencoder whose posterior is a flow."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = zuko.flows.MAF(4, 16, transforms=1, hidden_features=(32,))
        self.prior = zuko.flows.UnconditionalDistribution(
            zuko.distributions.DiagNormal, torch.zeros(4), torch.ones(4), buffer=True
        )
        self.decoder = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 16))

    def forward(self, x: Tensor) -> Tensor:
        """The evidence lower bound of each sample."""
        posterior = self.encoder(x)
        code, log_posterior = posterior.rsample_and_log_prob()
        pixels = torch.distributions.Bernoulli(logits=self.decoder(code))
        bound: Tensor = pixels.log_prob(x).sum(-1) + self.prior().log_prob(code) - log_posterior
        return bound


def programs() -> Iterator[Program]:
    """Flows, then what is no flow."""
    size = {"features": 2, "context": 3, "hidden_features": (32, 32)}
    yield program("NSF", lambda: zuko.flows.NSF(**size, transforms=2), -1.5)
    yield program("MAF", lambda: zuko.flows.MAF(**size, transforms=2), -1.5, traits="tuple causal")
    yield program("NICE", lambda: zuko.flows.NICE(**size, transforms=2), -1.5)
    yield program("NAF", lambda: zuko.flows.NAF(**size, transforms=1, signal=8), -1.5)
    yield program("SOSPF", lambda: zuko.flows.SOSPF(**size, transforms=1), -1.5)
    yield program("GF", lambda: zuko.flows.GF(**size, transforms=2), -1.5)
    yield program(
        "CNF",
        lambda: zuko.flows.CNF(2, 3, hidden_features=(16,), atol=1e-3, rtol=1e-3),
        1.7,
        lr=1e-2,
        steps=50,
        traits="tuple ode",
    )
    yield program("GMM", lambda: zuko.mixtures.GMM(2, 3, components=3, hidden_features=(32,)), -1.3)
    yield program(
        "MAF-autoencoder",
        AutoEncoder,
        7.0,
        lambda: (uniform(8, 16) > 0.5).float(),
        lambda model, x: -model(x).mean(),
        "stochastic terms",
        given={"stochastic": True},
        steps=400,
        lr=5e-3,
    )
