"""peft: adapters of several kinds in small models of transformers, whose own weights are frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import peft
import torch
import transformers as t
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, own_loss, padding_mask

SIZE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
TEXT = "ids attention_mask padding attention norm residual embedding dict adapter"


def bert(initializer_range: float = 0.02) -> nn.Module:
    """A classifier of text without dropout."""
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return t.BertForSequenceClassification(
        t.BertConfig(**SIZE, **dropout, num_labels=3, initializer_range=initializer_range)
    )


def lively_bert() -> nn.Module:
    """The same with weights as large as trained ones, so that a prompt changes what it sees."""
    return bert(initializer_range=0.2)


def llama() -> nn.Module:
    """A language model."""
    return t.LlamaForCausalLM(t.LlamaConfig(**SIZE, pad_token_id=0))


def t5() -> nn.Module:
    """A sequence to sequence model without dropout."""
    return t.T5ForConditionalGeneration(
        t.T5Config(
            vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0,
            dropout_rate=0.0,
        )
    )  # fmt: skip


def labelled() -> dict[str, Tensor]:
    """Padded sequences, and the class of each."""
    mask = padding_mask([10, 7, 5, 10], 10)
    return {"input_ids": integers(3, 64, 4, 10) * mask, "attention_mask": mask, "labels": torch.tensor([0, 1, 2, 1])}


def continued() -> dict[str, Tensor]:
    """Sequences of one length; the first token of each is its own."""
    ids = integers(3, 64, 2, 8)
    ids[:, 0] = torch.tensor([3, 4])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def translated() -> dict[str, Tensor]:
    """A source, and what it is to become."""
    ids = integers(3, 64, 2, 8)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": integers(3, 64, 2, 5, seed=1)}


def program(
    name: str,
    base: Callable[[], nn.Module],
    config: Callable[[], Any],
    batch: Callable[[], Any],
    limit: float,
    traits: str = TEXT,
    **more: Any,
) -> Program:
    """A model with an adapter: peft freezes what is not the adapter's."""
    settings: dict[str, Any] = {"lr": 1e-2, **more}
    traits_of = frozenset(traits.split())
    return Program(
        f"peft/{name}",
        "peft",
        lambda: peft.get_peft_model(base(), config()),
        batch,
        own_loss,
        limit,
        traits=traits_of,
        own_call=lambda: {"loss": None},
        **settings,
    )


def programs() -> Iterator[Program]:
    """Low-rank updates, then prompts and scales."""
    yield from updates()
    yield from prompts()


def updates() -> Iterator[Program]:
    """LoRA and its kin."""
    classify: dict[str, Any] = {"task_type": "SEQ_CLS"}
    both = ["query", "value"]
    yield program(
        "LoraModel",
        bert,
        lambda: peft.LoraConfig(**classify, r=8, target_modules=both),
        labelled,
        0.02,
        f"{TEXT} labels",
    )
    yield program(
        "LoraModel-dropout",
        bert,
        lambda: peft.LoraConfig(**classify, r=8, target_modules=both, lora_dropout=0.1, use_rslora=True),
        labelled,
        0.03,
        f"{TEXT} labels dropout",
        given={"stochastic": True},
    )
    yield program(
        "LoraModel-dora",
        bert,
        lambda: peft.LoraConfig(**classify, r=4, target_modules=both, use_dora=True),
        labelled,
        0.05,
        f"{TEXT} labels",
    )
    yield program(
        "LoraModel-causal",
        llama,
        lambda: peft.LoraConfig(
            task_type="CAUSAL_LM", r=8, target_modules="all-linear", modules_to_save=["lm_head", "embed_tokens"]
        ),
        continued,
        0.01,
        f"{TEXT} causal",
    )
    yield program(
        "LoraModel-seq2seq",
        t5,
        lambda: peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=8, target_modules=["q", "v", "wi", "wo"]),
        translated,
        0.5,
        f"{TEXT} causal",
    )
    yield from kin_of_lora()


def kin_of_lora() -> Iterator[Program]:
    """Updates of other forms."""
    classify: dict[str, Any] = {"task_type": "SEQ_CLS"}
    both = ["query", "value"]
    yield program(
        "LoHaModel",
        bert,
        lambda: peft.LoHaConfig(**classify, r=4, target_modules=both),
        labelled,
        0.02,
        f"{TEXT} labels",
    )
    yield program(
        "LoKrModel",
        bert,
        lambda: peft.LoKrConfig(**classify, r=4, target_modules=both),
        labelled,
        0.02,
        f"{TEXT} labels",
    )
    yield program(
        "AdaLoraModel",
        bert,
        lambda: peft.AdaLoraConfig(**classify, init_r=8, target_r=8, total_step=200, target_modules=both),
        labelled,
        0.2,
        f"{TEXT} labels terms",
    )
    yield program(
        "OFTModel",
        bert,
        lambda: peft.OFTConfig(**classify, oft_block_size=8, target_modules=both),
        labelled,
        0.1,
        f"{TEXT} labels",
    )
    yield program(
        "VeraModel",
        bert,
        lambda: peft.VeraConfig(**classify, r=16, target_modules=both),
        labelled,
        0.03,
        f"{TEXT} labels",
    )


def prompts() -> Iterator[Program]:
    """Vectors that scale, and tokens that are learned."""
    yield program(
        "IA3Model",
        bert,
        lambda: peft.IA3Config(
            task_type="SEQ_CLS", target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]
        ),
        labelled,
        0.03,
        f"{TEXT} labels",
        lr=3e-2,
    )
    yield program(
        "PromptEmbedding",
        lively_bert,
        lambda: peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=8),
        labelled,
        0.01,
        f"{TEXT} labels",
    )
    yield program(
        "PrefixEncoder",
        lively_bert,
        lambda: peft.PrefixTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=8, prefix_projection=True, encoder_hidden_size=32
        ),
        labelled,
        0.01,
        f"{TEXT} labels",
    )
    yield program(
        "PromptEncoder",
        lively_bert,
        lambda: peft.PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=6, encoder_hidden_size=32),
        labelled,
        0.01,
        f"{TEXT} labels",
    )
    yield program(
        "LNTuningModel",
        lively_bert,
        lambda: peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"]),
        labelled,
        0.01,
        f"{TEXT} labels",
    )
