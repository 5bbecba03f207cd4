"""linformer: attention whose keys and values are projected along the sequence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from linformer import Linformer, LinformerLM
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, integers, normal

TRAITS = "attention norm residual"


class Classifier(nn.Module):
    """Numbers of a sequence, the encoder, and a class of its mean."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.enter = nn.Linear(5, 32)
        self.encoder = Linformer(dim=32, seq_len=12, depth=1, k=4, heads=2, **settings)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each sequence."""
        out: Tensor = self.head(self.encoder(self.enter(x)).mean(1))
        return out


def masked(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the tokens that were hidden."""
    logits = model(batch["seen"])
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)


def hidden_tokens() -> dict[str, Tensor]:
    """Sentences of which every third token is replaced by token 0, and those tokens as labels."""
    ids = integers(1, 20, 4, 12)
    labels = ids.clone()
    labels[:, [each for each in range(12) if each % 3]] = -100
    seen = ids.clone()
    seen[:, ::3] = 0
    return {"seen": seen, "labels": labels}


def programs() -> Iterator[Program]:
    """Sequences of numbers, and of tokens."""
    sequences = lambda: (normal(6, 12, 5), classes(6, 3))  # noqa: E731
    labels = frozenset([*TRAITS.split(), "labels", "tuple"])
    yield Program("linformer/Linformer", "linformer", Classifier, sequences, cross_entropy, 0.01, traits=labels)
    yield Program(
        "linformer/Linformer-shared",
        "linformer",
        lambda: Classifier(share_kv=True, one_kv_head=True),
        sequences,
        cross_entropy,
        0.01,
        traits=labels,
    )
    yield Program(
        "linformer/LinformerLM",
        "linformer",
        lambda: LinformerLM(num_tokens=20, dim=32, seq_len=12, depth=2, k=6, heads=2),
        hidden_tokens,
        masked,
        0.05,
        lr=3e-3,
        traits=frozenset([*TRAITS.split(), "ids", "dict", "labels", "embedding"]),
    )
