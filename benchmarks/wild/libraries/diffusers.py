"""diffusers: networks that tell noise from images, autoencoders, adapters of both, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, normal, uniform

STEPS = torch.tensor([100, 600])


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    traits: str,
    **more: Any,
) -> Program:
    """A network of diffusers."""
    traits_of = frozenset(["image", "dict", "regression", *traits.split()])
    return Program(f"diffusers/{name}", "diffusers", model, batch, loss, limit, traits=traits_of, **more)


def noisy(size: int = 8, channels: int = 3) -> dict[str, Tensor]:
    """Images, noise that is the same at every step, and both mixed as a scheduler does it."""
    scheduler = diffusers.DDPMScheduler()
    clean, noise = uniform(2, channels, size, size) * 2 - 1, normal(2, channels, size, size, seed=1)
    return {"clean": clean, "noise": noise, "noisy": scheduler.add_noise(clean, noise, STEPS), "step": STEPS.clone()}


def conditioned() -> dict[str, Tensor]:
    """The same with a text beside each image, as hidden states."""
    return {**noisy(channels=4), "text": normal(2, 5, 32, seed=2)}


def classed() -> dict[str, Tensor]:
    """The same with a class for each image."""
    return {**noisy(channels=4), "label": classes(2, 3)}


def tell_noise(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of the noise."""
    return F.mse_loss(model(batch["noisy"], batch["step"]).sample, batch["noise"])


def tell_noise_by_text(model: nn.Module, batch: Any) -> Tensor:
    """The same, with a condition."""
    return F.mse_loss(model(batch["noisy"], batch["step"], batch["text"]).sample, batch["noise"])


def tell_noise_by_class(model: nn.Module, batch: Any) -> Tensor:
    """The same, with a class."""
    out = model(batch["noisy"], timestep=batch["step"], class_labels=batch["label"]).sample
    return F.mse_loss(out, batch["noise"])


def weighted(model: nn.Module, batch: Any) -> Tensor:
    """The loss of *Min-SNR*: each sample weighs by its signal-to-noise ratio, at most 5."""
    kept = diffusers.DDPMScheduler().alphas_cumprod[batch["step"]]
    ratio = kept / (1 - kept)
    error = F.mse_loss(model(batch["noisy"], batch["step"]).sample, batch["noise"], reduction="none").mean((1, 2, 3))
    return (error * ratio.clamp(max=5.0) / ratio).mean()


def resampled(model: nn.Module, batch: Any) -> Tensor:
    """As a trainer does it: noise and steps are drawn anew each time."""
    noise = torch.randn_like(batch["clean"])
    step = torch.randint(0, 1000, (2,))
    mixed = diffusers.DDPMScheduler().add_noise(batch["clean"], noise, step)
    return F.mse_loss(model(mixed, step).sample, noise)


def autoencoded(model: Any, batch: Any) -> Tensor:
    """Reconstruction, and a little of the divergence from a normal distribution."""
    posterior = model.encode(batch).latent_dist
    return F.mse_loss(model.decode(posterior.sample()).sample, batch) + 1e-4 * posterior.kl().mean()


def quantised(model: Any, batch: Any) -> Tensor:
    """Reconstruction from a codebook, and the loss that brings codes and book together."""
    codes = model.encode(batch).latents
    code, commitment, _ = model.quantize(codes)
    return F.mse_loss(model.decode(code, force_not_quantize=True).sample, batch) + commitment


def flow_matching(model: nn.Module, batch: Any) -> Tensor:
    """The velocity from noise to image, as the SD3 trainer asks for it."""
    share = (batch["step"] / 1000)[:, None, None, None]
    mixed = (1 - share) * batch["clean"] + share * batch["noise"]
    out = model(
        hidden_states=mixed, timestep=batch["step"], encoder_hidden_states=batch["text"],
        pooled_projections=batch["text"].mean(1),
    ).sample  # fmt: skip
    return F.mse_loss(out, batch["noise"] - batch["clean"])


def small_images() -> Tensor:
    """Smooth images with values from -1 to 1."""
    return F.interpolate(uniform(2, 3, 4, 4), (16, 16), mode="bilinear") * 2 - 1


def unet() -> nn.Module:
    """A U-Net of two levels."""
    return diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(16, 32), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def text_unet() -> nn.Module:
    """A U-Net that reads a text."""
    return diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), norm_num_groups=4, layers_per_block=1, cross_attention_dim=32,
        attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


class Controlled(nn.Module):
    """A U-Net that is frozen, and a ControlNet that is trained beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = text_unet().requires_grad_(False)
        self.control = diffusers.ControlNetModel.from_unet(
            self.unet, conditioning_channels=3, conditioning_embedding_out_channels=(4, 4, 8, 8)
        )

    def forward(self, noisy: Tensor, step: Tensor, text: Tensor, hint: Tensor) -> Tensor:
        """The noise."""
        down, middle = self.control(noisy, step, text, hint, return_dict=False)
        out: Tensor = self.unet(
            noisy, step, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample
        return out


def hinted() -> dict[str, Tensor]:
    """Noisy latents with a text, and a picture that says where things are."""
    return {**conditioned(), "hint": uniform(2, 3, 64, 64, seed=3)}


def programs() -> Iterator[Program]:
    """U-Nets, transformers, autoencoders."""
    yield from networks_of_noise()
    yield from transformers()
    yield from autoencoders()


def networks_of_noise() -> Iterator[Program]:
    """Convolutions, with and without a condition."""
    conv = "conv norm residual attention"
    yield program("UNet2DModel", unet, noisy, tell_noise, 0.02, conv, steps=100)
    yield program("UNet2DModel-min_snr", unet, noisy, weighted, 0.02, conv, steps=100)
    yield program(
        "UNet2DModel-resampled",
        unet,
        noisy,
        resampled,
        0.3,
        f"{conv} stochastic",
        given={"stochastic": True},
        steps=400,
        lr=2e-3,
    )
    yield program("UNet2DConditionModel", text_unet, conditioned, tell_noise_by_text, 0.02, conv, steps=120)
    yield program(
        "ControlNetModel",
        Controlled,
        hinted,
        lambda model, batch: F.mse_loss(
            model(batch["noisy"], batch["step"], batch["text"], batch["hint"]), batch["noise"]
        ),
        0.5,
        f"{conv} adapter",
        lr=1e-2,
        steps=100,
    )


def transformers() -> Iterator[Program]:
    """Transformers on patches of latents, and of embeddings."""
    attention = "attention norm residual"
    size = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "sample_size": 8, "patch_size": 2}
    yield program(
        "DiTTransformer2DModel",
        lambda: diffusers.DiTTransformer2DModel(
            **size, in_channels=4, out_channels=4, num_embeds_ada_norm=1000, norm_num_groups=4
        ),
        classed,
        tell_noise_by_class,
        0.02,
        f"{attention} dropout labels",
        given={"stochastic": True},
        lr=3e-3,
    )
    yield program(
        "SD3Transformer2DModel",
        lambda: diffusers.SD3Transformer2DModel(
            **size, in_channels=4, out_channels=4, joint_attention_dim=32, caption_projection_dim=32,
            pooled_projection_dim=32, pos_embed_max_size=8,
        ),
        conditioned,
        flow_matching,
        0.02,
        attention,
        lr=3e-3,
        given={"unused": ["transformer_blocks.1.attn.add_q_proj.*"]},  # nothing asks for texts after the last block
    )  # fmt: skip
    yield program(
        "PixArtTransformer2DModel",
        lambda: diffusers.PixArtTransformer2DModel(
            **size, in_channels=4, out_channels=4, cross_attention_dim=32, caption_channels=32, norm_num_groups=4,
            use_additional_conditions=False,
        ),
        conditioned,
        lambda model, batch: F.mse_loss(
            model(
                batch["noisy"], encoder_hidden_states=batch["text"], timestep=batch["step"],
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            ).sample,
            batch["noise"],
        ),
        0.02,
        attention,
        lr=3e-3,
    )  # fmt: skip
    yield from prior()


def prior() -> Iterator[Program]:
    """A transformer on embeddings, which tells an embedding."""
    attention = "attention norm residual"
    yield program(
        "PriorTransformer",
        lambda: diffusers.PriorTransformer(
            num_attention_heads=2, attention_head_dim=16, num_layers=1, embedding_dim=32, num_embeddings=5
        ),
        lambda: {
            "noisy": normal(2, 32),
            "noise": normal(2, 32, seed=1),
            "step": STEPS,
            "text": normal(2, 5, 32, seed=2),
        },
        lambda model, batch: F.mse_loss(
            model(batch["noisy"], batch["step"], batch["text"].mean(1), batch["text"]).predicted_image_embedding,
            batch["noise"],
        ),
        0.02,
        attention,
        given={"unused": ["clip_mean", "clip_std"]},  # for what comes after training
    )


def autoencoders() -> Iterator[Program]:
    """Continuous and discrete codes."""
    size = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    yield program(
        "AutoencoderKL",
        lambda: diffusers.AutoencoderKL(**size, **blocks, latent_channels=4),
        small_images,
        autoencoded,
        0.03,
        "conv norm residual attention stochastic terms",
        given={"stochastic": True},
        lr=2e-3,
    )
    yield program(
        "VQModel",
        lambda: diffusers.VQModel(**size, **blocks, latent_channels=4, num_vq_embeddings=32),
        small_images,
        quantised,
        0.015,
        "conv norm residual attention terms",
        lr=2e-3,
    )
    yield program(
        "AutoencoderTiny",
        lambda: diffusers.AutoencoderTiny(
            encoder_block_out_channels=(32, 32), decoder_block_out_channels=(32, 32), num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1), latent_channels=4,
        ),
        small_images,
        lambda model, batch: F.mse_loss(model.decode(model.encode(batch).latents).sample, batch),
        0.02,
        "conv residual",
        lr=3e-3,
    )  # fmt: skip
