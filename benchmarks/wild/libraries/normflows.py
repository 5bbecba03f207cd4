"""normflows: normalizing flows, of points, of images, and with a condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import normflows as nf
import torch
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, normal, uniform

UNBOUNDED = {"unbounded": True}


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    traits: str = "",
    **more: Any,
) -> Program:
    """A flow; its density has no upper bound."""
    given = {**UNBOUNDED, **more.pop("given", {})}
    traits_of = frozenset(["flow", *traits.split()])
    return Program(f"normflows/{name}", "normflows", model, batch, loss, limit, given=given, traits=traits_of, **more)


def points() -> Tensor:
    """Points of a plane near two arcs."""
    angle = torch.linspace(0, torch.pi, 64)
    upper = torch.stack([angle.cos(), angle.sin()], -1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], -1)
    return torch.cat([upper, lower]) + 0.1 * normal(128, 2)


def forward_kld(model: Any, batch: Any) -> Tensor:
    """The negative log likelihood of the batch."""
    loss: Tensor = model.forward_kld(batch)
    return loss


def stacked(layer: Callable[[], list[Any]], count: int = 4) -> Callable[[], nn.Module]:
    """A flow of several layers on a normal distribution."""
    return lambda: nf.NormalizingFlow(
        nf.distributions.DiagGaussian(2), [each for _ in range(count) for each in layer()]
    )


def coupling() -> list[Any]:
    """An affine coupling, then the coordinates change places."""
    network = nf.nets.MLP([1, 32, 32, 2], init_zeros=True)
    return [nf.flows.AffineCouplingBlock(network), nf.flows.Permute(2, mode="swap")]


def normalised_coupling() -> list[Any]:
    """An affine coupling with activation normalisation, which takes its scale from the first batch."""
    return [*coupling(), nf.flows.ActNorm(2)]


def residual() -> list[Any]:
    """A residual flow whose perceptron is kept Lipschitz."""
    network = nf.nets.LipschitzMLP([2, 32, 32, 2], init_zeros=True, lipschitz_const=0.9)
    return [nf.flows.Residual(network, reduce_memory=False, exact_trace=True, brute_force=True)]


class Conditional(nn.Module):
    """A conditional spline flow."""

    def __init__(self) -> None:
        super().__init__()
        layers = [
            nf.flows.AutoregressiveRationalQuadraticSpline(2, 1, 32, num_context_channels=3, init_identity=True)
            for _ in range(2)
        ]
        self.flow = nf.ConditionalNormalizingFlow(nf.distributions.DiagGaussian(2, trainable=False), layers)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """The log density of every point."""
        out: Tensor = self.flow.log_prob(x, context)
        return out


def glow() -> nn.Module:
    """A Glow of one level, with a base for every class."""
    flows = [[nf.flows.GlowBlock(12, 16, split_mode="channel", scale=True) for _ in range(2)] + [nf.flows.Squeeze()]]
    base = [nf.distributions.ClassCondDiagGaussian((12, 4, 4), 2)]
    return nf.MultiscaleFlow(base, flows, [])


class AutoEncoder(nn.Module):
    """A variational autoencoder of normflows, with a flow behind its encoder."""

    def __init__(self) -> None:
        super().__init__()
        encoder = nf.distributions.NNDiagGaussian(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)))
        decoder = nf.distributions.NNBernoulliDecoder(nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 16)))
        prior, flows = nf.distributions.DiagGaussian(4, trainable=False), [nf.flows.Planar((4,)) for _ in range(2)]
        self.model = nf.NormalizingFlowVAE(prior, encoder, flows, decoder)

    def forward(self, x: Tensor) -> Any:
        """Codes, and the logarithms of both densities."""
        return self.model(x)


def bound(model: nn.Module, batch: Any) -> Tensor:
    """The negative evidence lower bound."""
    _, log_q, log_p = model(batch)
    loss: Tensor = (log_q - log_p).mean()
    return loss


def programs() -> Iterator[Program]:
    """Couplings, autoregressions, residual flows, images and inference."""
    yield program("AffineCouplingBlock", stacked(coupling), points, forward_kld, 1.6, lr=2e-3)
    yield program("ActNorm", stacked(normalised_coupling), points, forward_kld, 1.6, lr=2e-3)
    yield program(
        "MaskedAffineAutoregressive",
        stacked(lambda: [nf.flows.MaskedAffineAutoregressive(2, 32), nf.flows.LULinearPermute(2)], 3),
        points,
        forward_kld,
        1.6,
        "causal",
        lr=2e-3,
    )
    yield program(
        "CoupledRationalQuadraticSpline",
        stacked(lambda: [nf.flows.CoupledRationalQuadraticSpline(2, 1, 32), nf.flows.LULinearPermute(2)], 2),
        points,
        forward_kld,
        1.6,
        lr=2e-3,
    )
    yield program(
        "Residual",
        stacked(residual, 3),
        points,
        forward_kld,
        2.1,
        "residual",
        lr=2e-3,
        given={"unused": ["flows.*.iresblock.geom_p", "flows.*.iresblock.lamb"]},  # for traces that are estimated
    )
    yield program(
        "ConditionalNormalizingFlow",
        Conditional,
        lambda: (points(), normal(128, 3, seed=1)),
        lambda model, batch: -model(*batch).mean(),
        1.5,
        "tuple",
    )
    yield program(
        "MultiscaleFlow-glow",
        glow,
        lambda: (uniform(4, 3, 8, 8), classes(4, 2)),
        lambda model, batch: model.forward_kld(*batch) / 192,
        0.0,
        "image conv labels tuple",
    )
    yield program(
        "NormalizingFlowVAE",
        AutoEncoder,
        lambda: (uniform(8, 16) > 0.5).float(),
        bound,
        8.0,
        "terms stochastic",
        given={"stochastic": True},
        lr=1e-2,
        steps=600,
    )
