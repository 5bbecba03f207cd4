"""Encoders of text, dropout at the defaults of each configuration."""

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
    labelled,
    masked,
    padded,
    program,
    tagged,
)
from benchmarks.wild.parts import integers

TEXT = "ids attention_mask padding attention norm residual embedding"


def programs() -> Iterator[Program]:
    """BERT with each of its heads, and other ways to attend."""
    yield from heads_of_bert()
    yield from relatives()
    yield from without_softmax()


def answers() -> dict[str, Tensor]:
    """Padded sequences, and where in each an answer begins and ends."""
    return {**padded(), "start_positions": torch.tensor([1, 2, 0, 7]), "end_positions": torch.tensor([3, 5, 4, 9])}


def choices() -> dict[str, Tensor]:
    """Two questions with three answers each, of which one is right."""
    ids = integers(3, VOCABULARY, 2, 3, 8, seed=4)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([2, 0])}


def pretraining() -> dict[str, Tensor]:
    """Masked tokens, and whether the second segment follows the first."""
    batch = masked()
    segments = (torch.arange(12) > 4).long().expand(4, 12)
    return {**batch, "token_type_ids": segments, "next_sentence_label": torch.tensor([0, 1, 1, 0])}


def replaced() -> dict[str, Tensor]:
    """Padded sequences, and for each token whether a generator has replaced it."""
    return {**padded(), "labels": integers(0, 2, 4, 12, seed=5).float()}


def layout() -> dict[str, Tensor]:
    """Words of a page, and the box of each."""
    corner = integers(0, 500, 4, 12, 2, seed=6)
    return {**tagged(), "bbox": torch.cat([corner, corner + 100], -1)}


def multi_label() -> dict[str, Tensor]:
    """Padded sequences, each with several labels."""
    return {**padded(), "labels": integers(0, 2, 4, 5, seed=7).float()}


def scored() -> dict[str, Tensor]:
    """Padded sequences, and a number for each."""
    return {**padded(), "labels": torch.tensor([0.3, -1.0, 0.8, 1.4])}


def bert(head: str, **options: Any) -> Any:
    """A factory of BERT with a head."""
    return lambda: getattr(t, head)(t.BertConfig(**{**SMALL, **options}))


def heads_of_bert() -> Iterator[Program]:
    """One encoder, and what it is fine-tuned for."""
    dropout: dict[str, Any] = {"given": DROPOUT}
    yield program(
        "BertForSequenceClassification",
        bert("BertForSequenceClassification", num_labels=3),
        labelled,
        0.05,
        f"{TEXT} dropout labels",
        **dropout,
    )
    yield program(
        "BertForSequenceClassification-regression",
        bert("BertForSequenceClassification", num_labels=1),
        scored,
        0.03,
        f"{TEXT} dropout regression",
        **dropout,
    )
    yield program(
        "BertForSequenceClassification-multilabel",
        bert("BertForSequenceClassification", num_labels=5, problem_type="multi_label_classification"),
        multi_label,
        0.25,
        f"{TEXT} dropout",
        steps=300,
        **dropout,
    )
    yield program(
        "BertForTokenClassification",
        bert("BertForTokenClassification", num_labels=3),
        tagged,
        0.05,
        f"{TEXT} dropout labels",
        **dropout,
    )
    yield program(
        "BertForMaskedLM", bert("BertForMaskedLM"), masked, 0.15, f"{TEXT} dropout tied", steps=300, **dropout
    )
    yield program(
        "BertForQuestionAnswering", bert("BertForQuestionAnswering"), answers, 0.08, f"{TEXT} dropout", **dropout
    )
    yield program(
        "BertForMultipleChoice",
        bert("BertForMultipleChoice"),
        choices,
        0.02,
        "ids attention_mask attention norm residual embedding dropout labels",
        **dropout,
    )
    yield program(
        "BertForPreTraining",
        bert("BertForPreTraining"),
        pretraining,
        0.15,
        f"{TEXT} dropout tied terms",
        steps=300,
        **dropout,
    )


def relatives() -> Iterator[Program]:
    """Other encoders: shared layers, disentangled and rotary positions, then windows and boxes."""
    three = {**SMALL, "num_labels": 3}
    yield program(
        "RobertaForSequenceClassification",
        lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**three, pad_token_id=0)),
        labelled,
        0.05,
        f"{TEXT} dropout labels",
        given=DROPOUT,
    )
    yield program(
        "DistilBertForTokenClassification",
        lambda: t.DistilBertForTokenClassification(
            t.DistilBertConfig(
                vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=32,
                num_labels=3,
            )
        ),
        tagged,
        0.05,
        f"{TEXT} dropout labels",
        given=DROPOUT,
    )  # fmt: skip
    yield program(
        "AlbertForSequenceClassification",
        lambda: t.AlbertForSequenceClassification(t.AlbertConfig(**three, embedding_size=16)),
        labelled,
        0.015,
        f"{TEXT} dropout labels",
        given=DROPOUT,
        lr=3e-3,
    )
    yield program(
        "ElectraForPreTraining",
        lambda: t.ElectraForPreTraining(t.ElectraConfig(**SMALL, embedding_size=16)),
        replaced,
        0.01,
        f"{TEXT} dropout",
        given=DROPOUT,
        steps=300,
    )
    yield program(
        "DebertaV2ForSequenceClassification",
        lambda: t.DebertaV2ForSequenceClassification(
            t.DebertaV2Config(**three, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8)
        ),
        labelled,
        0.02,
        f"{TEXT} dropout labels",
        given=DROPOUT,
    )
    yield from of_windows_and_boxes()


def of_windows_and_boxes() -> Iterator[Program]:
    """Windows, global tokens, boxes."""
    three = {**SMALL, "num_labels": 3}
    yield program(
        "ModernBertForMaskedLM",
        lambda: t.ModernBertForMaskedLM(
            t.ModernBertConfig(
                **SMALL, pad_token_id=0, bos_token_id=2, eos_token_id=2, cls_token_id=2, sep_token_id=2,
                local_attention=4, global_attn_every_n_layers=2,
            )
        ),
        masked,
        0.05,
        f"{TEXT} tied",
        lr=3e-3,
    )  # fmt: skip
    yield program(
        "LongformerForSequenceClassification",
        lambda: t.LongformerForSequenceClassification(t.LongformerConfig(**three, attention_window=4, pad_token_id=0)),
        labelled,
        0.05,
        f"{TEXT} dropout labels",
        given={
            **DROPOUT,  # of the last layer only the first token counts, whose attention has weights of its own
            "unused": [f"longformer.encoder.layer.1.attention.self.{each}.*" for each in ("query", "key", "value")],
        },
    )
    yield program(
        "LayoutLMForTokenClassification",
        lambda: t.LayoutLMForTokenClassification(t.LayoutLMConfig(**three)),
        layout,
        0.05,
        f"{TEXT} dropout labels",
        given={**DROPOUT, "unused": ["layoutlm.pooler.*"]},
    )
    yield program(
        "MPNetForSequenceClassification",
        lambda: t.MPNetForSequenceClassification(t.MPNetConfig(**three)),
        labelled,
        0.05,
        f"{TEXT} dropout labels",
        given=DROPOUT,
    )


def without_softmax() -> Iterator[Program]:
    """Fourier transforms, convolutions and a latent array in place of full attention."""
    three = {**SMALL, "num_labels": 3}
    yield program(
        "FNetForSequenceClassification",
        lambda: t.FNetForSequenceClassification(t.FNetConfig(**three)),
        lambda: {key: value for key, value in labelled().items() if key != "attention_mask"},
        0.05,
        "ids norm residual embedding dropout labels complex",
        given=DROPOUT,
    )
    yield program(
        "ConvBertForSequenceClassification",
        lambda: t.ConvBertForSequenceClassification(
            t.ConvBertConfig(**{**three, "num_attention_heads": 4}, embedding_size=32, conv_kernel_size=3)
        ),
        labelled,
        0.02,
        f"{TEXT} dropout conv labels",
        given=DROPOUT,
    )
    yield program(
        "PerceiverForMaskedLM",
        lambda: t.PerceiverForMaskedLM(
            t.PerceiverConfig(
                num_latents=8, d_latents=32, d_model=32, num_blocks=1, num_self_attends_per_block=1,
                num_self_attention_heads=2, num_cross_attention_heads=2, vocab_size=VOCABULARY,
                max_position_embeddings=12, qk_channels=32, v_channels=32,
            )
        ),
        masked,
        0.1,
        f"{TEXT} dropout",
        given=DROPOUT,
        lr=3e-3,
        steps=600,
    )  # fmt: skip
