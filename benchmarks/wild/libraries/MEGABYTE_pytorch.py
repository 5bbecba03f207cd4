# ruff: noqa: N999 - as the package is called
"""MEGABYTE-pytorch: bytes in patches, a transformer over patches and one inside of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from MEGABYTE_pytorch import MEGABYTE
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers

LIBRARY = "MEGABYTE_pytorch"
TRAITS = frozenset(["ids", "causal", "attention", "norm", "residual", "embedding", "dict"])
SMALL: dict[str, Any] = {"num_tokens": 20, "dim": 32, "dim_head": 16, "heads": 2, "ff_mult": 2}


def own(model: nn.Module, batch: Any) -> Tensor:
    """The loss that the model returns: every byte from those before it."""
    loss: Tensor = model(batch["ids"], return_loss=True)
    return loss


def by_hand(model: nn.Module, batch: Any) -> Tensor:
    """The same of its logits, each of which has read the byte at its place, without the first byte."""
    logits = model(batch["ids"])[:, : batch["ids"].shape[1] - 1]
    return F.cross_entropy(logits.flatten(0, 1), batch["ids"][:, 1:].flatten())


def ids(length: int) -> dict[str, Tensor]:
    """Sequences without the number that stands for padding, which begin alike."""
    found = integers(1, 20, 4, length)
    found[:, 0] = 1
    return {"ids": found}


def programs() -> Iterator[Program]:
    """Two stages and three."""
    two = lambda **more: MEGABYTE(**SMALL, depth=(1, 1), max_seq_len=(4, 4), **more)  # noqa: E731
    yield Program(
        f"{LIBRARY}/MEGABYTE",
        LIBRARY,
        lambda: two(pos_emb=True),
        lambda: ids(16),
        own,
        0.2,
        steps=100,
        lr=1e-2,
        traits=TRAITS,
    )
    yield Program(
        f"{LIBRARY}/MEGABYTE-rotary", LIBRARY, lambda: two(rel_pos=True, flash_attn=True), lambda: ids(16), by_hand,
        0.2, steps=100, lr=1e-2, traits=TRAITS,
    )  # fmt: skip
    yield Program(
        f"{LIBRARY}/MEGABYTE-three", LIBRARY,
        lambda: MEGABYTE(**SMALL, depth=(1, 1, 1), max_seq_len=(3, 2, 2), pos_emb=True), lambda: ids(12), own, 0.3,
        steps=100, lr=1e-2, traits=TRAITS,
    )  # fmt: skip
