"""open_clip: images beside texts, by contrast and by pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import open_clip
import torch
from open_clip import loss as losses
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, normal

TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
VISION = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
TRAITS = "image ids attention norm residual embedding dict contrastive"


def pairs() -> dict[str, Tensor]:
    """Images and texts that belong together; the token of the end is the largest."""
    text = integers(1, 60, 6, 8, seed=1)
    text[:, 0] = torch.arange(6) + 1
    text[:, 7] = 63
    return {"image": normal(6, 3, 32, 32), "text": text}


def contrast(model: nn.Module, batch: Any) -> Tensor:
    """Each image beside its own text among all."""
    image, text, scale = model(batch["image"], batch["text"])[:3]
    loss: Tensor = losses.ClipLoss()(image, text, scale)
    return loss


def sigmoid_pairs(model: nn.Module, batch: Any) -> Tensor:
    """Each pair for itself, right or wrong."""
    image, text, scale, bias = model(batch["image"], batch["text"])
    loss: Tensor = losses.SigLipLoss()(image, text, scale, bias)
    return loss


def program(
    name: str,
    model: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Any], Tensor],
    limit: float,
    traits: str = TRAITS,
    **more: Any,
) -> Program:
    """A model of pairs."""
    return Program(
        f"open_clip/{name}", "open_clip", model, pairs, loss, limit, traits=frozenset(traits.split()), **more
    )


def programs() -> Iterator[Program]:
    """Two towers, by contrast and by pairs."""
    convolutional = {**VISION, "layers": (1, 1, 1, 1), "width": 16}
    yield program("CLIP", lambda: CLIP(32, VISION, TEXT), contrast, 0.01)
    yield program(
        "CLIP-resnet", lambda: CLIP(32, convolutional, TEXT), contrast, 0.01, f"{TRAITS} conv batchnorm", steps=100
    )
    yield program(
        "CustomTextCLIP-siglip",
        lambda: CustomTextCLIP(32, VISION, TEXT, init_logit_scale=2.3026, init_logit_bias=-10.0),
        sigmoid_pairs,
        0.45,
    )
    yield program("ClipLoss-frozen_tower", locked, contrast, 0.01, f"{TRAITS} adapter")


def locked() -> nn.Module:
    """A CLIP whose image tower is locked but for its last group."""
    model = open_clip.model.CustomTextCLIP(32, VISION, TEXT)
    model.lock_image_tower(unlocked_groups=1)
    return model
