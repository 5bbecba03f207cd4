"""A small diffusion model."""

from denoise.model import Denoiser
from denoise.process import STEPS, diffusion_loss, noised

__all__ = ["STEPS", "Denoiser", "diffusion_loss", "noised"]
