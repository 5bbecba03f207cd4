"""perceiver-pytorch: a few latent vectors that read inputs of any form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from perceiver_pytorch import Perceiver, PerceiverIO
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal, padding_mask


def sets() -> dict[str, Tensor]:
    """Padded sets of vectors, places that are asked about, and what is there."""
    return {
        "set": normal(3, 10, 8),
        "mask": padding_mask([10, 7, 4], 10).bool(),
        "asked": normal(3, 5, 6, seed=1),
        "value": normal(3, 5, 2, seed=2),
    }


def answers(model: nn.Module, batch: Any) -> Tensor:
    """The squared error at every place."""
    return F.mse_loss(model(batch["set"], mask=batch["mask"], queries=batch["asked"]), batch["value"])


def programs() -> Iterator[Program]:
    """One answer, then an answer for each question."""
    traits = frozenset(["attention", "norm", "residual"])
    yield Program(
        "perceiver_pytorch/Perceiver",
        "perceiver_pytorch",
        lambda: Perceiver(
            input_channels=2, input_axis=2, num_freq_bands=4, max_freq=8.0, depth=2, num_latents=8, latent_dim=32,
            cross_heads=1, latent_heads=2, cross_dim_head=16, latent_dim_head=16, num_classes=3, weight_tie_layers=True,
            self_per_cross_attn=1,
        ),
        lambda: (normal(6, 8, 8, 2), classes(6, 3)),
        cross_entropy,
        0.02,
        traits=traits | {"image", "labels", "tuple", "tied"},
    )  # fmt: skip
    yield Program(
        "perceiver_pytorch/PerceiverIO",
        "perceiver_pytorch",
        lambda: PerceiverIO(
            depth=1, dim=8, queries_dim=6, logits_dim=2, num_latents=8, latent_dim=32, cross_heads=1, latent_heads=2,
            cross_dim_head=16, latent_dim_head=16, decoder_ff=True,
        ),
        sets,
        answers,
        0.02,
        lr=3e-3,
        traits=traits | {"regression", "dict", "padding", "attention_mask"},
    )  # fmt: skip
