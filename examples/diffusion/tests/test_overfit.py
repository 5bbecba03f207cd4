"""Can the model learn to denoise one image?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from denoise import STEPS, Denoiser, diffusion_loss, noised
from torch import Tensor
from torch.nn import functional as F

Overfit = Callable[..., Any]


@pytest.mark.overfit(stochastic=True, objective={"below": 0.25, "relative": True}, max_steps=800)
def test_learns_to_denoise_one_image(overfit: Overfit) -> None:
    """Some noise of early times cannot be told from the image: the limit is a share of the start, not nearly zero."""
    overfit(Denoiser, loss=diffusion_loss)


@pytest.mark.overfit(objective=0.01, max_steps=800)
def test_memorises_fixed_noise(overfit: Overfit, image: Tensor) -> None:
    """Noise and times belong to the sample: nothing is random, and the loss has a floor of zero."""
    source = torch.Generator().manual_seed(1)
    times = torch.randint(STEPS, (8,), generator=source)
    noise = torch.randn(8, 1, 8, 8, generator=source)
    batch = {"images": image.repeat(8, 1, 1, 1), "noise": noise, "times": times}
    overfit(Denoiser, batch, lambda model, b: F.mse_loss(model(noised(**b), b["times"]), b["noise"]))


def test_a_second_draw_of_the_noise_is_found(overfit: Overfit) -> None:
    """Nobody can predict noise that was not mixed in: the best guess is zero, and its error one."""

    def loss(model: Denoiser, images: Tensor) -> Tensor:
        times = torch.randint(STEPS, (len(images),))
        return F.mse_loss(model(noised(images, torch.randn_like(images), times), times), torch.randn_like(images))

    with pytest.raises(AssertionError, match=r"objective: objective 0\.\d+ of its start"):
        overfit(Denoiser, loss=loss, stochastic=True, objective={"below": 0.25, "relative": True}, max_steps=200)
