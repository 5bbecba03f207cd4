"""The model and its Trainer."""

from __future__ import annotations

from typing import Any

from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from rhymes.data import ALPHABET, END, PADDING, collate, lines


def build_model(width: int = 48, layers: int = 2) -> GPT2LMHeadModel:
    """A decoder without dropout, which has no floor of zero."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=2 + len(ALPHABET),
            n_positions=32,
            n_embd=width,
            n_layer=layers,
            n_head=2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=END,
            eos_token_id=END,
            pad_token_id=PADDING,
        )
    )


def build_trainer(folder: str, **changes: Any) -> Trainer:
    """The Trainer of our runs; ``changes`` are arguments in place of ours."""
    arguments = TrainingArguments(output_dir=folder, learning_rate=5e-3, warmup_steps=10, report_to=[], use_cpu=True)
    ours = {"model": build_model(), "args": arguments, "train_dataset": lines(), "data_collator": collate}
    return changes.pop("kind", Trainer)(**{**ours, **changes})
