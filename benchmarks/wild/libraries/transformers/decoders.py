"""Decoders of text, state spaces and mixtures of experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers as t
from torch import Tensor

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.transformers.parts import (
    DROPOUT,
    SMALL,
    VOCABULARY,
    causal,
    causal_full,
    full,
    labelled,
    program,
)

TEXT = "ids attention_mask padding attention norm residual embedding causal"
GROUPED = {**SMALL, "num_key_value_heads": 1}


def programs() -> Iterator[Program]:
    """By where positions come from, and by what mixes tokens."""
    yield from learned_positions()
    yield from rotary()
    yield from experts()
    yield from states()


def packed() -> dict[str, Tensor]:
    """Two documents in one row: positions begin again at the second, whose first token nothing has to foresee."""
    batch = full(2, 16)
    positions = torch.cat([torch.arange(10), torch.arange(6)]).expand(2, 16)
    labels = batch["input_ids"].clone()
    labels[:, 10] = -100
    return {**batch, "position_ids": positions, "labels": labels}


def learned_positions() -> Iterator[Program]:
    """Learned positions, and attention biased by distance."""
    yield program(
        "GPT2LMHeadModel",
        lambda: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=32, n_layer=2, n_head=2)),
        causal,
        0.04,
        f"{TEXT} dropout tied",
        given=DROPOUT,
        steps=300,
        lr=3e-3,
    )
    yield program(
        "GPT2ForSequenceClassification",
        lambda: t.GPT2ForSequenceClassification(
            t.GPT2Config(
                vocab_size=VOCABULARY, n_positions=32, n_embd=32, n_layer=2, n_head=2, num_labels=3, pad_token_id=0
            )
        ),
        labelled,
        0.05,
        f"{TEXT} dropout labels",
        given=DROPOUT,
    )
    yield program(
        "GPTNeoForCausalLM",
        lambda: t.GPTNeoForCausalLM(
            t.GPTNeoConfig(
                vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_heads=2, max_position_embeddings=32,
                attention_types=[[["global", "local"], 1]], window_size=4,
            )
        ),
        causal,
        0.04,
        f"{TEXT} tied",
        lr=3e-3,
    )  # fmt: skip
    yield program(
        "OPTForCausalLM",
        lambda: t.OPTForCausalLM(
            t.OPTConfig(
                vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=64,
                max_position_embeddings=32, word_embed_proj_dim=32, pad_token_id=0,
            )
        ),
        causal,
        0.05,
        f"{TEXT} dropout tied",
        given=DROPOUT,
        lr=3e-3,
    )  # fmt: skip
    yield from biased_by_distance()


def biased_by_distance() -> Iterator[Program]:
    """No positions: attention is biased by distance."""
    yield program(
        "BloomForCausalLM",
        lambda: t.BloomForCausalLM(
            t.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=2, pad_token_id=0)
        ),
        causal,
        0.04,
        f"{TEXT} tied",
        lr=3e-3,
    )


def rotary() -> Iterator[Program]:
    """Rotary positions, grouped queries, gated perceptrons, windows, capped logits, parallel residuals."""
    fast: dict[str, Any] = {"lr": 3e-3}
    yield program("LlamaForCausalLM", lambda: t.LlamaForCausalLM(t.LlamaConfig(**GROUPED)), causal, 0.05, TEXT, **fast)
    yield program(
        "LlamaForCausalLM-packed",
        lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL, use_cache=False)),  # with a cache documents are one to it
        packed,
        0.05,
        "ids packed attention norm residual embedding causal",
        **fast,
    )
    yield program(
        "LlamaForSequenceClassification",
        lambda: t.LlamaForSequenceClassification(t.LlamaConfig(**SMALL, num_labels=3, pad_token_id=0)),
        labelled,
        0.05,
        f"{TEXT} labels",
    )
    yield program(
        "MistralForCausalLM",
        lambda: t.MistralForCausalLM(t.MistralConfig(**GROUPED, sliding_window=4)),
        causal,
        0.05,
        TEXT,
        **fast,
    )
    yield program(
        "Gemma2ForCausalLM",
        lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**GROUPED, head_dim=16, sliding_window=8)),
        causal,
        0.05,
        f"{TEXT} tied",
        **fast,
    )
    yield program(
        "Qwen3ForCausalLM",
        lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**GROUPED, head_dim=16)),
        causal,
        0.05,
        TEXT,
        **fast,
    )
    yield program(
        "PhiForCausalLM",
        lambda: t.PhiForCausalLM(t.PhiConfig(**SMALL, partial_rotary_factor=0.5)),
        causal,
        0.05,
        TEXT,
        **fast,
    )
    yield program(
        "GPTNeoXForCausalLM", lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**SMALL)), causal, 0.05, TEXT, **fast
    )


def experts() -> Iterator[Program]:
    """Mixtures of experts, with the loss that keeps them balanced."""
    yield program(
        "MixtralForCausalLM",
        lambda: t.MixtralForCausalLM(
            t.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2, output_router_logits=True)
        ),
        causal,
        0.05,
        f"{TEXT} experts terms",
        lr=3e-3,
    )
    yield program(
        "Qwen2MoeForCausalLM",
        lambda: t.Qwen2MoeForCausalLM(
            t.Qwen2MoeConfig(
                **GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
                shared_expert_intermediate_size=32, decoder_sparse_step=1,
            )
        ),
        causal,
        0.04,
        f"{TEXT} experts",
        lr=3e-3,
    )  # fmt: skip


def states() -> Iterator[Program]:
    """Recurrences in place of attention, and beside it."""
    ids = "ids embedding norm residual causal recurrent"
    yield program(
        "MambaForCausalLM",
        lambda: t.MambaForCausalLM(
            t.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8)
        ),
        causal_full,
        0.05,
        f"{ids} tied conv",
        lr=3e-3,
        steps=200,
    )
    yield program(
        "Mamba2ForCausalLM",
        lambda: t.Mamba2ForCausalLM(
            t.Mamba2Config(
                vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, state_size=8, num_heads=4, head_dim=16,
                n_groups=1, chunk_size=8,
            )
        ),
        causal_full,
        0.05,
        f"{ids} conv",
        lr=3e-3,
        steps=200,
    )  # fmt: skip
    yield program(
        "RwkvForCausalLM",
        lambda: t.RwkvForCausalLM(
            t.RwkvConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, context_length=32)
        ),
        causal_full,
        0.05,
        ids,
        lr=3e-3,
    )
    yield program(
        "RecurrentGemmaForCausalLM",
        lambda: t.RecurrentGemmaForCausalLM(
            t.RecurrentGemmaConfig(
                **SMALL, lru_width=32, attention_window_size=8, block_types=("recurrent", "attention"), head_dim=16
            )
        ),
        causal_full,
        0.05,
        f"{ids} attention tied conv",
        lr=3e-3,
        steps=200,
    )
