"""Small configurations and batches of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, own_loss, padding_mask

VOCABULARY = 64
PAD = 0
LENGTHS = [12, 9, 5, 12]
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
DROPOUT = {"stochastic": True}


def own_call() -> dict[str, Any]:
    """A model that returns its own loss is handed over without one."""
    return {"loss": None}


def program(
    name: str,
    model: Callable[[], nn.Module],
    batch: Callable[[], Any],
    limit: float,
    traits: str,
    loss: Callable[[nn.Module, Any], Tensor] = own_loss,
    **more: Any,
) -> Program:
    """A model of transformers, by default with the loss that it returns."""
    traits_of = frozenset(["dict", *traits.split()])
    if loss is own_loss:
        more.setdefault("own_call", own_call)
    return Program(f"transformers/{name}", "transformers", model, batch, loss, limit, traits=traits_of, **more)


def sentences(count: int, length: int, seed: int = 0) -> Tensor:
    """Token ids; no two sequences begin alike, so that each next token can be told."""
    ids = integers(3, VOCABULARY, count, length, seed=seed)
    ids[:, 0] = torch.arange(count) + 3
    return ids


def padded() -> dict[str, Tensor]:
    """Sequences of several lengths, padded at the right, with their mask."""
    mask = padding_mask(LENGTHS, 12)
    ids = sentences(4, 12)
    return {"input_ids": torch.where(mask.bool(), ids, PAD), "attention_mask": mask}


def full(count: int = 4, length: int = 12) -> dict[str, Tensor]:
    """Sequences of one length."""
    return {"input_ids": sentences(count, length)}


def labelled() -> dict[str, Tensor]:
    """Padded sequences, and the class of each."""
    return {**padded(), "labels": torch.tensor([0, 1, 2, 1])}


def tagged() -> dict[str, Tensor]:
    """Padded sequences, and the class of each token; -100 at the padding."""
    batch = padded()
    tags = integers(0, 3, 4, 12, seed=1)
    return {**batch, "labels": torch.where(batch["attention_mask"].bool(), tags, -100)}


def masked() -> dict[str, Tensor]:
    """Padded sequences with some tokens replaced by a mask, which are the ones to be told."""
    batch = padded()
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    chosen = (integers(0, 4, 4, 12, seed=2) == 0) & mask
    return {**batch, "input_ids": torch.where(chosen, 1, ids), "labels": torch.where(chosen, ids, -100)}


def causal() -> dict[str, Tensor]:
    """Padded sequences that are continued token by token; -100 at the padding."""
    batch = padded()
    labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"], -100)
    return {**batch, "labels": labels}


def causal_full() -> dict[str, Tensor]:
    """Sequences of one length that are continued token by token."""
    batch = full()
    return {**batch, "labels": batch["input_ids"]}


def translated() -> dict[str, Tensor]:
    """Padded sequences, and what each is to become; -100 behind its end."""
    target = integers(3, VOCABULARY, 4, 10, seed=3)
    return {**padded(), "labels": torch.where(padding_mask([10, 6, 8, 10], 10).bool(), target, -100)}
