# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Generative models: VAE, VQ-VAE, diffusion, flows, mixture densities, GANs, an autoregressive one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.case import Setup, cases, fixed, mlp, smooth_images
from benchmarks.zoo.vision import adam

Batch = dict[str, Any]


class VAE(nn.Module):
    """A diagonal Gaussian posterior of 8 latents."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 96, 16), mlp(8, 96, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        latent = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(latent), mean, log_variance


def vae_terms(model: nn.Module, x: Tensor, beta: float) -> dict[str, Tensor]:
    """Mean squared reconstruction error plus beta times the KL divergence per pixel."""
    output, mean, log_variance = model(x)
    kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2 / x.shape[1]
    reconstruction = F.mse_loss(output, x)
    return {"objective": reconstruction + beta * kl, "reconstruction": reconstruction, "kl": kl}


def vae() -> Setup:
    """The divergence is the floor of the objective, so a limit is stated."""
    x = smooth_images(8, 1, 8, fixed()).flatten(1)
    return Setup(VAE(), x, lambda m, b: vae_terms(m, b, 1.0), optimizer=adam(3e-3), settings={"objective": 0.45})


def beta_vae_small() -> Setup:
    """A divergence of small weight: the objective falls by a factor of ten."""
    x = smooth_images(8, 1, 8, fixed()).flatten(1)
    limit = {"below": 0.1, "relative": True}
    return Setup(VAE(), x, lambda m, b: vae_terms(m, b, 0.01), optimizer=adam(3e-3), settings={"objective": limit})


class VQVAE(nn.Module):
    """A codebook of 8 unit vectors, straight-through gradients (van den Oord et al., 2017; Yu et al., 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(48, 96, 4 * 8), mlp(4 * 8, 96, 48)
        self.codebook = nn.Embedding(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latent = F.normalize(self.encoder(x).unflatten(1, (4, 8)), dim=-1)
        codes = F.normalize(self.codebook.weight, dim=-1)
        code = codes[(latent @ codes.T).argmax(-1)]
        passed = latent + (code - latent).detach()
        commitment = F.mse_loss(latent, code.detach())
        return self.decoder(passed.flatten(1)), F.mse_loss(code, latent.detach()), commitment


def vq_vae() -> Setup:
    """Hard assignments that change in steps while the loss falls."""

    def loss(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        output, codebook, commitment = model(batch)
        reconstruction = F.mse_loss(output, batch)
        return {"objective": reconstruction + codebook + 0.25 * commitment, "reconstruction": reconstruction}

    return Setup(VQVAE(), torch.randn(6, 48, generator=fixed()), loss, optimizer=adam(2e-3))


class Denoiser(nn.Module):
    """Predicts the noise in x at a time in 0..1."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.net = mlp(32 + 16, width, width, 32, activation=nn.SiLU)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] * math.pi * 2.0 ** torch.arange(8)
        return self.net(torch.cat([x, angles.sin(), angles.cos()], dim=1))


def noised(x: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """x under a cosine schedule: signal cos(pi t / 2), noise sin(pi t / 2)."""
    angle = time[:, None] * math.pi / 2
    return angle.cos() * x + angle.sin() * noise


def diffusion_fixed_noise() -> Setup:
    """Noise and times are part of the batch."""
    source = fixed()
    batch = {
        "x": torch.randn(16, 32, generator=source),
        "noise": torch.randn(16, 32, generator=source),
        "time": torch.rand(16, generator=source),
    }

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(noised(**batch), batch["time"]), batch["noise"])

    return Setup(Denoiser(), batch, loss)


def diffusion_resampled_noise() -> Setup:
    """New noise and times in every step.

    Two declarations: small times are hard, which puts a floor under the mean, and the objective of a step is random.
    """

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        noise, time = torch.randn_like(batch), torch.rand(len(batch))
        return F.mse_loss(model(noised(batch, noise, time), time), noise)

    x = torch.randn(4, 32, generator=fixed()).repeat(16, 1)
    settings = {"objective": 0.35, "stochastic": True}
    return Setup(Denoiser(), x, loss, optimizer=adam(3e-3), settings=settings)


def flow_matching() -> Setup:
    """Straight paths from noise to data (Lipman et al., 2023), noise and times in the batch."""
    source = fixed()
    batch = {
        "data": torch.randn(16, 32, generator=source),
        "noise": torch.randn(16, 32, generator=source),
        "time": torch.rand(16, generator=source),
    }

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        time = batch["time"][:, None]
        between = (1 - time) * batch["noise"] + time * batch["data"]
        return (model(between, batch["time"]) - (batch["data"] - batch["noise"])).square().mean()

    return Setup(Denoiser(), batch, loss, optimizer=adam(2e-3))


class Coupling(nn.Module):
    """Affine coupling layers that take turns (Dinh et al., 2017), each the identity at first."""

    def __init__(self, features: int = 6, layers: int = 4) -> None:
        super().__init__()
        nets = [mlp(features // 2, 48, features) for _ in range(layers)]
        for net in nets:
            for parameter in net[-1].parameters():
                nn.init.zeros_(parameter)
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        left, right = x.chunk(2, dim=1)
        log_det = x.new_zeros(len(x))
        for net in self.nets:
            scale, shift = net(left).chunk(2, dim=1)
            scale = 2 * torch.tanh(scale / 2)
            left, right = right * scale.exp() + shift, left
            log_det = log_det + scale.sum(1)
        return torch.cat([left, right], dim=1), log_det


def normalising_flow() -> Setup:
    """Negative log likelihood per dimension: a density may exceed one, so a negative limit is stated."""
    x = 0.5 * torch.randn(16, 6, generator=fixed())

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        z, log_det = model(batch)
        log_likelihood = -z.square().sum(1) / 2 - math.log(2 * math.pi) * 3 + log_det
        return -log_likelihood.mean() / 6

    return Setup(Coupling(), x, loss, optimizer=adam(3e-3), settings={"objective": -0.5})


class MixtureDensity(nn.Module):
    """Weights, means and log scales of three Gaussians; scales have a floor."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(8, 64, 64, 9, activation=nn.Tanh)

    def forward(self, x: Tensor) -> torch.distributions.MixtureSameFamily:
        weights, means, scales = self.net(x).chunk(3, dim=1)
        parts = torch.distributions.Normal(means, F.softplus(scales) + 0.02)
        return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=weights), parts)


def mixture_density() -> Setup:
    """Negative log likelihood of one value under a mixture: a negative limit is stated."""
    source = fixed()
    batch = {"x": torch.randn(16, 8, generator=source), "y": torch.randn(16, generator=source)}

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return -model(batch["x"]).log_prob(batch["y"]).mean()

    return Setup(MixtureDensity(), batch, loss, optimizer=adam(3e-3), settings={"objective": {"below": -1.0}})


def heteroscedastic_regression() -> Setup:
    """A mean and a log variance per target (Nix and Weigend, 1994): a negative limit is stated."""
    source = fixed()
    batch = (torch.randn(16, 10, generator=source), torch.randn(16, 2, generator=source))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        mean, log_variance = model(batch[0]).chunk(2, dim=1)
        error = (mean - batch[1]).square()
        return (error * (-log_variance).exp() + log_variance).mean() / 2, {"mse": error.mean()}

    return Setup(mlp(10, 96, 96, 4), batch, loss, settings={"objective": -1.0})


def conditional_gan() -> Setup:
    """Image to image (Isola et al., 2017), two optimizers; the L1 term is judged, the terms of the game are shown."""
    source = fixed()
    batch = {"edges": smooth_images(4, 1, 8, source).flatten(1), "photo": smooth_images(4, 1, 8, source).flatten(1)}
    models = {"generator": mlp(64, 128, 64), "discriminator": mlp(128, 64, 1, activation=lambda: nn.LeakyReLU(0.2))}
    optimizers = {
        name: torch.optim.Adam(each.parameters(), lr=1e-3, betas=(0.5, 0.999)) for name, each in models.items()
    }

    def judge(models: Mapping[str, nn.Module], edges: Tensor, photo: Tensor, real: bool) -> Tensor:
        logits = models["discriminator"](torch.cat([edges, photo], dim=1))
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))

    def step(
        models: Mapping[str, nn.Module], batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer]
    ) -> dict[str, Tensor]:
        edges, photo = batch["edges"], batch["photo"]
        made = models["generator"](edges)
        optimizers["discriminator"].zero_grad()
        discriminator = (judge(models, edges, photo, True) + judge(models, edges, made.detach(), False)) / 2
        discriminator.backward()
        optimizers["discriminator"].step()

        optimizers["generator"].zero_grad()
        l1, adversarial = F.l1_loss(made, photo), judge(models, edges, made, True)
        (100 * l1 + adversarial).backward()
        optimizers["generator"].step()
        return {"objective": l1.detach(), "adversarial": adversarial.detach(), "discriminator": discriminator.detach()}

    return Setup(models, batch, optimizer=optimizers, step=step, settings={"objective": 0.05})


class PixelCNN(nn.Module):
    """Masked convolutions over binary images: every pixel from those above and to the left."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 5, padding=2)
        self.second, self.head = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 1, 1)
        self.before: Tensor
        self.until: Tensor
        self.register_buffer("before", self._mask(5, centre=False))
        self.register_buffer("until", self._mask(3, centre=True))
        self.position = nn.Parameter(torch.zeros(width, 8, 8))

    @staticmethod
    def _mask(size: int, centre: bool) -> Tensor:
        mask = torch.ones(size * size)
        mask[size * size // 2 + centre :] = 0
        return mask.view(size, size)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.first.weight * self.before, self.first.bias, padding=2) + self.position
        x = F.conv2d(F.relu(x), self.second.weight * self.until, self.second.bias, padding=1)
        return self.head(F.relu(x))


def pixel_cnn() -> Setup:
    """One binary image: its bits are input and target."""
    image = (smooth_images(1, 1, 8, fixed()) > 0).float()

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch), batch)

    return Setup(PixelCNN(), image, loss, optimizer=adam(5e-3))


CASES = cases(
    "generative", vae, beta_vae_small, vq_vae, diffusion_fixed_noise, diffusion_resampled_noise, flow_matching,
    normalising_flow, mixture_density, heteroscedastic_regression, conditional_gan, pixel_cnn,
)  # fmt: skip
