"""gpytorch: Gaussian processes, exact, variational, of several tasks, and with a network below."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gpytorch
import torch
from gpytorch import distributions, kernels, likelihoods, means, mlls, models, variational
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal

FEW = torch.linspace(0, 1, 12)
WAVE = torch.sin(6 * FEW)


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    traits: str = "regression",
    **more: Any,
) -> Program:
    """A Gaussian process; its likelihood has no upper bound."""
    given = {"unbounded": True, **more.pop("given", {})}
    settings: dict[str, Any] = {"lr": 0.05, "given": given, **more}
    traits_of = frozenset(traits.split())
    return Program(f"gpytorch/{name}", "gpytorch", model, batch, loss, limit, traits=traits_of, **settings)


class Exact(models.ExactGP):
    """A process whose data are a part of it."""

    def __init__(self, x: Tensor, y: Tensor, kernel: Any) -> None:
        super().__init__(x, y, likelihoods.GaussianLikelihood())
        self.mean_module, self.covar_module = means.ConstantMean(), kernel

    def forward(self, x: Tensor) -> Any:
        """The prior at these places."""
        return distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def exact_loss(model: Any, batch: Any) -> Tensor:
    """The negative marginal log likelihood."""
    loss: Tensor = -mlls.ExactMarginalLogLikelihood(model.likelihood, model)(model(batch[0]), batch[1])
    return loss


def wave() -> tuple[Tensor, Tensor]:
    """A sine, at twelve places."""
    return FEW.clone(), WAVE.clone()


class Sparse(models.ApproximateGP):
    """A process that is summed up by a few inducing points."""

    def __init__(self, likelihood: nn.Module, points: Tensor, distribution: Any, strategy: Any) -> None:
        posterior = distribution(points.shape[0])
        super().__init__(strategy(self, points, posterior, learn_inducing_locations=True))
        self.mean_module = means.ConstantMean()
        self.covar_module = kernels.ScaleKernel(kernels.RBFKernel())
        self.likelihood = likelihood

    def forward(self, x: Tensor) -> Any:
        """The prior at these places."""
        return distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def evidence(model: Any, batch: Any) -> Tensor:
    """The negative evidence lower bound."""
    bound = mlls.VariationalELBO(model.likelihood, model, num_data=batch[1].shape[0])
    loss: Tensor = -bound(model(batch[0]), batch[1])
    return loss


def predictive(model: Any, batch: Any) -> Tensor:
    """The negative predictive log likelihood."""
    bound = mlls.PredictiveLogLikelihood(model.likelihood, model, num_data=batch[1].shape[0])
    loss: Tensor = -bound(model(batch[0]), batch[1])
    return loss


class Tasks(models.ExactGP):
    """Two functions that have something in common."""

    def __init__(self) -> None:
        x, y = two_waves()
        super().__init__(x, y, likelihoods.MultitaskGaussianLikelihood(num_tasks=2))
        self.mean_module = means.MultitaskMean(means.ConstantMean(), num_tasks=2)
        self.covar_module = kernels.MultitaskKernel(kernels.RBFKernel(), num_tasks=2, rank=1)

    def forward(self, x: Tensor) -> Any:
        """The prior of both."""
        return distributions.MultitaskMultivariateNormal(self.mean_module(x), self.covar_module(x))


def two_waves() -> tuple[Tensor, Tensor]:
    """A sine and a cosine."""
    return FEW.clone(), torch.stack([WAVE, torch.cos(6 * FEW)], -1)


class Deep(models.ExactGP):
    """A network that maps the inputs, and a process on what it gives."""

    def __init__(self) -> None:
        x, y = plane()
        super().__init__(x, y, likelihoods.GaussianLikelihood())
        self.network = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
        self.mean_module, self.covar_module = means.ConstantMean(), kernels.ScaleKernel(kernels.RBFKernel())
        self.scale = gpytorch.utils.grid.ScaleToBounds(-1.0, 1.0)

    def forward(self, x: Tensor) -> Any:
        """The prior at these places."""
        features = self.scale(self.network(x))
        return distributions.MultivariateNormal(self.mean_module(features), self.covar_module(features))


def plane() -> tuple[Tensor, Tensor]:
    """Sixteen points of three coordinates, and a smooth function of them."""
    x = normal(16, 3)
    return x, torch.sin(x.sum(-1))


def programs() -> Iterator[Program]:
    """Exact processes, then variational ones."""
    scaled = kernels.ScaleKernel
    yield program("ExactGP", lambda: Exact(*wave(), scaled(kernels.RBFKernel())), wave, exact_loss, -0.5)
    yield program(
        "ExactGP-matern",
        lambda: Exact(*plane(), scaled(kernels.MaternKernel(2.5, ard_num_dims=3))),
        plane,
        exact_loss,
        0.6,
    )
    yield program(
        "ExactGP-periodic",
        lambda: Exact(*wave(), scaled(kernels.PeriodicKernel()) + scaled(kernels.LinearKernel())),
        wave,
        exact_loss,
        -0.5,
    )
    yield program("ExactGP-mixture", lambda: Exact(*wave(), spectral()), wave, exact_loss, -0.3)
    yield program("ExactGP-multitask", Tasks, two_waves, exact_loss, -0.5)
    yield program("ExactGP-deep_kernel", Deep, plane, exact_loss, 0.5, lr=0.02)
    yield from variational_ones()


def variational_ones() -> Iterator[Program]:
    """Processes on a few points, by their evidence."""
    yield program(
        "ApproximateGP",
        lambda: Sparse(
            likelihoods.GaussianLikelihood(), FEW[::2].clone(), variational.CholeskyVariationalDistribution,
            variational.VariationalStrategy,
        ),
        wave,
        evidence,
        0.2,
        "regression terms",
    )  # fmt: skip
    yield program(
        "ApproximateGP-classifier",
        lambda: Sparse(
            likelihoods.BernoulliLikelihood(), FEW[::2].clone(), variational.CholeskyVariationalDistribution,
            variational.VariationalStrategy,
        ),
        lambda: (FEW.clone(), (WAVE > 0).float()),
        evidence,
        0.6,
        "labels terms",
    )  # fmt: skip
    yield program(
        "ApproximateGP-whitened",
        lambda: Sparse(
            likelihoods.StudentTLikelihood(), FEW[::2].clone(), variational.MeanFieldVariationalDistribution,
            variational.VariationalStrategy,
        ),
        wave,
        evidence,
        1.0,
        "regression terms",
    )  # fmt: skip
    yield program(
        "ApproximateGP-predictive",
        lambda: Sparse(
            likelihoods.GaussianLikelihood(), FEW[::2].clone(), variational.CholeskyVariationalDistribution,
            variational.UnwhitenedVariationalStrategy,
        ),
        wave,
        predictive,
        0.3,
        "regression terms",
        steps=400,
        lr=0.02,
    )  # fmt: skip


def spectral() -> Any:
    """A mixture of spectra, begun from the data."""
    kernel = kernels.SpectralMixtureKernel(num_mixtures=2)
    kernel.initialize_from_data(FEW, WAVE)
    return kernel
