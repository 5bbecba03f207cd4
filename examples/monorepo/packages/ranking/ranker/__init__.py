"""Which product answers a query?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORDS, TEMPERATURE = 50, 0.1


class Tower(nn.Module):
    """Words (B, T) to one unit vector per text, (B, D)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(WORDS, width)
        self.out = nn.Linear(width, width)

    def forward(self, words: Tensor) -> Tensor:
        return F.normalize(self.out(self.words(words).tanh()), dim=-1)


def towers() -> dict[str, nn.Module]:
    """Both towers of a ranker, untrained."""
    return {"query": Tower(), "product": Tower()}


def contrastive_terms(
    models: Mapping[str, Callable[[Tensor], Tensor]], batch: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Every query's own product against those of all others, and how many queries find theirs."""
    scores = models["query"](batch["query"]) @ models["product"](batch["product"]).T / TEMPERATURE
    own = torch.arange(len(scores), device=scores.device)
    return {"loss": F.cross_entropy(scores, own), "recall": (scores.argmax(dim=1) == own).float().mean()}
