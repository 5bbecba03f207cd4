"""Time series, decisions, molecules and other sequences of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers as t
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.transformers.parts import DROPOUT, program
from benchmarks.wild.parts import integers, normal

UNBOUNDED = {"stochastic": True, "unbounded": True}
STEPS = torch.arange(48.0)


def waves(start: int, end: int) -> Tensor:
    """Two series with other seasons, of shape (2, steps)."""
    return torch.stack([torch.sin(0.3 * STEPS), 2 + torch.cos(0.5 * STEPS)])[:, start:end]


def foreseen() -> dict[str, Tensor]:
    """The past with its lags, the future, and the time of both."""
    time = (STEPS / 48)[None, :, None].repeat(2, 1, 1)
    past = waves(0, 24)
    return {
        "past_values": past,
        "past_time_features": time[:, :24],
        "past_observed_mask": torch.ones_like(past),
        "future_values": waves(24, 30),
        "future_time_features": time[:, 24:30],
        "static_categorical_features": torch.tensor([[0], [1]]),
    }


def patched() -> dict[str, Tensor]:
    """The past and the future of two channels."""
    both = torch.stack([waves(0, 38), waves(5, 43)], -1)
    return {"past_values": both[:, :32], "future_values": both[:, 32:38]}


def played() -> dict[str, Tensor]:
    """States, actions, rewards and what is still to be won."""
    return {
        "states": normal(2, 6, 5),
        "actions": normal(2, 6, 3, seed=1).tanh(),
        "rewards": normal(2, 6, 1, seed=2),
        "returns_to_go": normal(2, 6, 1, seed=3),
        "timesteps": torch.arange(6).expand(2, 6),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]]),
    }


def imitation(model: nn.Module, batch: Any) -> Tensor:
    """The squared error of the actions that were there."""
    told = model(**batch).action_preds
    known = batch["attention_mask"].bool()
    loss: Tensor = (told[known] - batch["actions"][known]).pow(2).mean()
    return loss


def programs() -> Iterator[Program]:
    """Forecasts, then decisions."""
    lags = {"lags_sequence": [1, 2, 4], "context_length": 20, "prediction_length": 6, "num_time_features": 1}
    static = {"num_static_categorical_features": 1, "cardinality": [2], "embedding_dimension": [4]}
    size = {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    }  # fmt: skip
    series = "series regression attention norm residual embedding dropout"
    yield program(
        "TimeSeriesTransformerForPrediction",
        lambda: t.TimeSeriesTransformerForPrediction(t.TimeSeriesTransformerConfig(**lags, **static, **size)),
        foreseen,
        -0.3,
        f"{series} causal",
        given=UNBOUNDED,
        lr=3e-3,
        steps=300,
    )
    yield program(
        "InformerForPrediction",
        lambda: t.InformerForPrediction(t.InformerConfig(**lags, **static, **size)),
        foreseen,
        -0.3,
        series,
        given=UNBOUNDED,
        lr=3e-3,
        steps=300,
    )
    yield program(
        "AutoformerForPrediction",
        lambda: t.AutoformerForPrediction(t.AutoformerConfig(**lags, **static, **size, moving_average=5)),
        foreseen,
        0.5,
        series,
        given=UNBOUNDED,
        lr=3e-3,
        steps=300,
    )
    yield from forecasts_of_patches()


def forecasts_of_patches() -> Iterator[Program]:
    """Forecasts from patches of a series."""
    yield program(
        "PatchTSTForPrediction",
        lambda: t.PatchTSTForPrediction(
            t.PatchTSTConfig(
                num_input_channels=2, context_length=32, patch_length=8, patch_stride=4, prediction_length=6,
                d_model=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32, loss="mse",
            )
        ),
        patched,
        0.01,
        "series regression attention norm batchnorm residual",
        lr=3e-3,
    )  # fmt: skip
    yield program(
        "PatchTSMixerForPrediction",
        lambda: t.PatchTSMixerForPrediction(
            t.PatchTSMixerConfig(
                context_length=32, prediction_length=6, patch_length=8, patch_stride=8, num_input_channels=2,
                d_model=16, num_layers=2, dropout=0.1, head_dropout=0.1,
            )
        ),
        patched,
        0.03,
        "series regression norm residual dropout",
        given=DROPOUT,
        lr=3e-3,
    )  # fmt: skip
    yield from decisions()


def decisions() -> Iterator[Program]:
    """Decisions, and classes of residues."""
    yield program(
        "DecisionTransformerModel",
        lambda: t.DecisionTransformerModel(
            t.DecisionTransformerConfig(
                state_dim=5, act_dim=3, hidden_size=32, max_ep_len=16, n_layer=2, n_head=2, vocab_size=1, n_positions=64
            )
        ),
        played,
        0.01,
        "reinforcement regression attention norm residual embedding causal attention_mask padding dropout",
        loss=imitation,
        given={
            **DROPOUT,
            "unused": ["predict_state.*", "predict_return.*", "encoder.wte.weight"],
            "allow": ["input-ignored:rewards"],  # forward takes them and reads the returns
        },
        lr=3e-3,
        steps=300,
    )
    yield program(
        "EsmForTokenClassification",
        lambda: t.EsmForTokenClassification(
            t.EsmConfig(
                vocab_size=33, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                pad_token_id=1, mask_token_id=32, position_embedding_type="rotary", num_labels=3,
                max_position_embeddings=32,
            )
        ),
        lambda: {
            "input_ids": integers(4, 24, 3, 10),
            "attention_mask": torch.ones(3, 10, dtype=torch.long),
            "labels": integers(0, 3, 3, 10, seed=1),
        },
        0.1,
        "ids attention_mask attention norm residual embedding dropout labels",
        given={**DROPOUT, "unused": ["esm.contact_head.*"]},
        steps=300,
    )  # fmt: skip
