"""entmax: sparse softmax, in losses and in attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import entmax
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, integers, normal, padding_mask

LABELS = frozenset(["labels", "sparse_probabilities"])


def body() -> nn.Module:
    """A perceptron."""
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3))


class Attention(nn.Module):
    """One layer of attention over padded tokens, whose weights are a sparse distribution."""

    def __init__(self, alpha: float | None) -> None:
        super().__init__()
        self.embedding, self.query = nn.Embedding(30, 32, padding_idx=0), nn.Parameter(0.1 * torch.ones(32))
        self.key, self.value, self.head = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 3)
        self.alpha = nn.Parameter(torch.tensor(1.5)) if alpha is None else alpha

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits of each sequence."""
        tokens = self.embedding(ids)
        scores = (self.key(tokens) @ self.query).masked_fill(~mask, -1e4)
        weights = (
            entmax.entmax_bisect(scores, self.alpha) if isinstance(self.alpha, Tensor) else entmax.entmax15(scores)
        )
        out: Tensor = self.head((weights[..., None] * self.value(tokens)).sum(1))
        return out


def sentences() -> dict[str, Tensor]:
    """Padded sequences, their mask, and the class of each."""
    mask = padding_mask([7, 5, 7, 3], 7).bool()
    return {"ids": integers(1, 30, 4, 7) * mask, "mask": mask, "labels": classes(4, 3)}


def attended(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the sequences."""
    return F.cross_entropy(model(batch["ids"], batch["mask"]), batch["labels"])


def programs() -> Iterator[Program]:
    """Losses, then attention."""
    for name, criterion in (
        ("entmax15_loss", entmax.entmax15_loss),
        ("sparsemax_loss", entmax.sparsemax_loss),
        ("Entmax15Loss-k", entmax.Entmax15Loss(k=2, reduction="elementwise_mean")),
    ):
        yield Program(
            f"entmax/{name}",
            "entmax",
            body,
            lambda: (normal(6, 6), classes(6, 3)),
            lambda model, batch, criterion=criterion: criterion(model(batch[0]), batch[1]).mean(),
            0.01,
            lr=1e-2,
            traits=LABELS,
        )
    traits = LABELS | {"ids", "attention_mask", "padding", "attention", "embedding", "dict"}
    yield Program(
        "entmax/entmax15-attention", "entmax", lambda: Attention(1.5), sentences, attended, 0.02, lr=1e-2, traits=traits
    )
    yield Program(
        "entmax/entmax_bisect-attention",
        "entmax",
        lambda: Attention(None),
        sentences,
        attended,
        0.02,
        lr=1e-2,
        traits=traits,
    )
