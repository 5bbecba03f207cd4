"""Sequence to sequence: T5, BART and their kind."""

from __future__ import annotations

from collections.abc import Iterator

import transformers as t
from torch import Tensor

from benchmarks.wild.case import Program
from benchmarks.wild.libraries.transformers.parts import DROPOUT, VOCABULARY, labelled, program, translated

TEXT = "ids attention_mask padding attention norm residual embedding causal"
BART = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}


def programs() -> Iterator[Program]:
    """An encoder, a decoder and attention from one to the other."""
    yield program(
        "T5ForConditionalGeneration",
        lambda: t.T5ForConditionalGeneration(t.T5Config(**T5)),
        translated,
        0.4,
        f"{TEXT} dropout tied",
        given=DROPOUT,
        lr=3e-3,
        steps=300,
    )
    yield program(
        "MT5ForConditionalGeneration",
        lambda: t.MT5ForConditionalGeneration(t.MT5Config(**T5, dropout_rate=0.0)),
        translated,
        0.01,
        TEXT,
        lr=3e-3,
    )
    yield program(
        "BartForConditionalGeneration",
        lambda: t.BartForConditionalGeneration(t.BartConfig(**BART)),
        translated,
        0.08,
        f"{TEXT} dropout tied",
        given=DROPOUT,
        lr=3e-3,
        steps=300,
    )
    yield program(
        "PegasusForConditionalGeneration",
        lambda: t.PegasusForConditionalGeneration(t.PegasusConfig(**BART, dropout=0.0, attention_dropout=0.0)),
        translated,
        0.02,
        f"{TEXT} tied",
        lr=3e-3,
        steps=300,
    )
    yield program(
        "MarianMTModel",
        lambda: t.MarianMTModel(t.MarianConfig(**BART)),
        translated,
        0.3,
        f"{TEXT} dropout tied",
        given=DROPOUT,
        lr=3e-3,
        steps=300,
    )
    yield from experts_and_classes()


def experts_and_classes() -> Iterator[Program]:
    """Experts, and classes of sentences."""
    yield program(
        "SwitchTransformersForConditionalGeneration",
        lambda: t.SwitchTransformersForConditionalGeneration(
            t.SwitchTransformersConfig(
                **T5, num_experts=2, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, dropout_rate=0.0,
                router_jitter_noise=0.0, expert_capacity=64,
            )
        ),
        translated,
        0.1,
        f"{TEXT} experts",
        lr=3e-3,
    )  # fmt: skip
    yield program(
        "T5ForSequenceClassification",
        lambda: t.T5ForSequenceClassification(t.T5Config(**T5, num_labels=3, eos_token_id=2)),
        lambda: _ending(labelled()),
        0.04,
        f"{TEXT} dropout labels",
        given=DROPOUT,
    )


def _ending(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with an end-of-sequence token as the last of each sequence, by which T5 classifies."""
    last = batch["attention_mask"].sum(1) - 1
    batch["input_ids"][range(len(last)), last] = 2
    return batch
