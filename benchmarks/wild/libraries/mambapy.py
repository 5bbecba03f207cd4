"""mambapy: a state space model by a parallel scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mambapy.mamba import Mamba, MambaConfig
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers


class Language(nn.Module):
    """Embeddings, two layers of Mamba, and a head that shares the embeddings' weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(40, 32), nn.Linear(32, 40, bias=False)
        self.body = Mamba(MambaConfig(d_model=32, n_layers=2, d_state=8))
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the next token."""
        out: Tensor = self.head(self.body(self.embedding(ids)))
        return out


def sentences() -> Tensor:
    """Token ids; no two sequences begin alike."""
    ids = integers(0, 40, 3, 17)
    ids[:, 0] = torch.arange(3)
    return ids


def next_token(model: nn.Module, ids: Any) -> Tensor:
    """Cross entropy of each token but the first."""
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def programs() -> Iterator[Program]:
    """A language model."""
    traits = frozenset(["ids", "embedding", "tied", "norm", "residual", "causal", "recurrent", "conv"])
    yield Program("mambapy/Mamba", "mambapy", Language, sentences, next_token, 0.02, lr=3e-3, traits=traits)
