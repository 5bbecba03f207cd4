"""Images beside texts: pairs that belong together, and captions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers as t
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.transformers.parts import DROPOUT, program
from benchmarks.wild.libraries.transformers.vision import SMALL, VIT
from benchmarks.wild.parts import integers, normal, padding_mask


def pairs() -> dict[str, Any]:
    """Images and texts that belong together."""
    ids = integers(3, 60, 4, 8)
    ids[:, 0], ids[:, -1] = torch.arange(4) + 3, 63
    return {"pixel_values": normal(4, 3, 32, 32), "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def contrast(model: nn.Module, batch: Any) -> Tensor:
    """The loss that the model returns when asked."""
    loss: Tensor = model(**batch, return_loss=True).loss
    return loss


def captions() -> dict[str, Tensor]:
    """Images, and a padded caption for each."""
    ids = integers(3, 60, 4, 8, seed=2)
    ids[:, 0] = 2
    mask = padding_mask([8, 6, 8, 5], 8)
    return {"pixel_values": normal(4, 3, 32, 32), "labels": torch.where(mask.bool(), ids, -100)}


def programs() -> Iterator[Program]:
    """Images beside texts."""
    text = {
        "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 8,
    }  # fmt: skip
    pairs_traits = f"{VIT} ids attention_mask embedding contrastive"
    yield program(
        "CLIPModel",
        lambda: t.CLIPModel(
            t.CLIPConfig(
                text_config={**text, "eos_token_id": 63, "bos_token_id": 1}, vision_config=SMALL, projection_dim=32
            )
        ),
        pairs,
        0.01,
        pairs_traits,
        loss=contrast,
    )
    yield program(
        "SiglipModel",
        lambda: t.SiglipModel(t.SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=SMALL)),
        lambda: {key: value for key, value in pairs().items() if key != "attention_mask"},
        0.1,
        f"{VIT} ids embedding contrastive",
        loss=contrast,
        steps=300,
        lr=1e-2,
    )
    yield program(
        "VisionEncoderDecoderModel",
        captioner,
        captions,
        0.03,
        f"{VIT} ids padding embedding causal dropout",
        given={**DROPOUT, "unused": ["encoder.pooler.*"]},
        lr=3e-3,
        steps=300,
    )


def captioner() -> nn.Module:
    """A ViT that a GPT-2 reads."""
    model = t.VisionEncoderDecoderModel(
        encoder=t.ViTModel(t.ViTConfig(**SMALL)),
        decoder=t.GPT2LMHeadModel(
            t.GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=1, n_head=2, add_cross_attention=True)
        ),
    )
    model.config.decoder_start_token_id, model.config.pad_token_id = 1, 0
    return model
