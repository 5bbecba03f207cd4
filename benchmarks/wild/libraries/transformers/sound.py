"""Sound: letters without times, classes, and speech to text."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import transformers as t
from torch import Tensor

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.transformers.parts import DROPOUT, program
from benchmarks.wild.parts import integers, normal

WAVE = "audio attention norm residual conv dropout"
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16, 16),
    "conv_stride": (4, 4),
    "conv_kernel": (8, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 12,
}


def spoken() -> dict[str, Tensor]:
    """Waves of two lengths with their mask, and the letters of each; -100 behind the end."""
    labels = torch.tensor([[3, 4, 5, 6, 7], [8, 3, 9, -100, -100]])
    mask = torch.ones(2, 480, dtype=torch.long)
    mask[1, 352:] = 0
    return {"input_values": normal(2, 480) * mask, "attention_mask": mask, "labels": labels}


def named() -> dict[str, Tensor]:
    """Waves, and the class of each."""
    return {"input_values": normal(4, 400), "labels": torch.tensor([0, 1, 2, 1])}


def framed() -> dict[str, Tensor]:
    """Waves, and for each of 23 frames who speaks."""
    return {"input_values": normal(2, 400), "labels": integers(0, 2, 2, 23, 2, seed=1).float()}


def dictated() -> dict[str, Tensor]:
    """Spectra, and the tokens of each."""
    labels = integers(3, 60, 2, 6, seed=1)
    labels[:, 0] = torch.tensor([3, 4])
    labels[1, 4:] = -100
    return {"input_features": normal(2, 8, 40), "labels": labels}


def programs() -> Iterator[Program]:
    """Waves, then spectra."""
    quiet = {"unused": ["*masked_spec_embed"], "stochastic": True}
    ctc = {"ctc_loss_reduction": "mean", "pad_token_id": 0, "apply_spec_augment": False, "ctc_zero_infinity": True}
    yield program(
        "Wav2Vec2ForCTC",
        lambda: t.Wav2Vec2ForCTC(t.Wav2Vec2Config(**SMALL, **ctc, feat_extract_norm="layer")),
        spoken,
        0.06,
        f"{WAVE} attention_mask padding ctc",
        given=quiet,
        steps=400,
        lr=3e-3,
    )
    yield program(
        "HubertForSequenceClassification",
        lambda: t.HubertForSequenceClassification(
            t.HubertConfig(**SMALL, num_labels=3, classifier_proj_size=16, apply_spec_augment=False)
        ),
        named,
        0.01,
        f"{WAVE} labels",
        given=quiet,
        steps=300,
        lr=3e-3,
    )
    yield program(
        "WavLMForAudioFrameClassification",
        lambda: t.WavLMForAudioFrameClassification(t.WavLMConfig(**SMALL, num_labels=2, apply_spec_augment=False)),
        framed,
        0.01,
        f"{WAVE} labels",
        given=quiet,
        steps=300,
        lr=3e-3,
    )
    yield from spectra()


def spectra() -> Iterator[Program]:
    """Spectra: their class, or their words."""
    yield program(
        "ASTForAudioClassification",
        lambda: t.ASTForAudioClassification(
            t.ASTConfig(
                hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_length=32,
                num_mel_bins=16, patch_size=8, frequency_stride=8, time_stride=8, num_labels=3,
            )
        ),
        lambda: {"input_values": normal(4, 32, 16), "labels": torch.tensor([0, 1, 2, 1])},
        0.05,
        "audio attention norm residual labels",
    )  # fmt: skip
    yield program(
        "WhisperForConditionalGeneration",
        lambda: t.WhisperForConditionalGeneration(
            t.WhisperConfig(
                vocab_size=64, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=8,
                max_source_positions=20, max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
            )
        ),
        dictated,
        0.03,
        "audio ids attention norm residual conv embedding causal tied",
        lr=3e-3,
        given={"frozen": ["model.encoder.embed_positions.weight"]},
    )  # fmt: skip
    yield program(
        "Speech2TextForConditionalGeneration",
        lambda: t.Speech2TextForConditionalGeneration(
            t.Speech2TextConfig(
                vocab_size=64, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, input_feat_per_channel=8,
                max_source_positions=64, max_target_positions=16, conv_channels=16, num_conv_layers=2, pad_token_id=0,
                bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
            )
        ),
        lambda: {**dictated(), "input_features": normal(2, 40, 8)},
        0.05,
        "audio ids attention norm residual conv embedding causal dropout",
        given=DROPOUT,
        lr=3e-3,
        steps=300,
    )  # fmt: skip
