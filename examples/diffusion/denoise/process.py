"""The forward process and the loss of Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 100


def signal_share(times: Tensor) -> Tensor:
    """What is left of the image's variance at times (B,) in 0..STEPS-1, under betas that rise to 0.1: (B,)."""
    betas = torch.linspace(1e-3, 0.1, STEPS, device=times.device)
    return torch.cumprod(1 - betas, dim=0)[times]


def noised(images: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Images (B, 1, 8, 8) with noise of the same shape mixed in, as much as at times (B,)."""
    share = signal_share(times)[:, None, None, None]
    return share.sqrt() * images + (1 - share).sqrt() * noise


def diffusion_loss(model: nn.Module, images: Tensor) -> Tensor:
    """Mean squared error of the predicted noise, at random times."""
    times = torch.randint(STEPS, (len(images),), device=images.device)
    noise = torch.randn_like(images)
    return F.mse_loss(model(noised(images, noise, times), times), noise)
