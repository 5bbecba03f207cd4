"""Three small programs of torch alone, which have a place for most operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program


def fixed(*shape: int) -> Tensor:
    """The same numbers at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Convolutions(nn.Module):
    """A classifier of images with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.act = nn.ReLU()
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(x))).mean((2, 3))
        out: Tensor = self.head(torch.relu(self.mix(x)))
        return out


class Words(nn.Module):
    """A causal language model of one block, with tied embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.pos = nn.Embedding(20, 32), nn.Embedding(8, 32)
        self.norm, self.qkv, self.out = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.head = nn.Linear(32, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embed(ids) + self.pos(torch.arange(ids.shape[1]))
        q, k, v = (each.unflatten(-1, (2, 16)).transpose(1, 2) for each in self.qkv(self.norm(x)).chunk(3, -1))
        seen = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()[None, None]
        if mask is not None:
            seen = seen & mask[:, None, None].bool()
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2))
        out: Tensor = self.head(x)
        return out


class Signal(nn.Module):
    """A regression of a sequence, with dropout and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 32)
        self.cell = nn.GRU(32, 32, batch_first=True)
        self.drop = nn.Dropout(0.05)
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.drop(self.cell(torch.relu(self.first(x)))[0][:, -1]))
        return out


def classified(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of images."""
    return F.cross_entropy(model(batch[0]), batch[1])


def next_token(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the next tokens."""
    logits = model(batch["ids"], mask=batch["mask"])
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["ids"][:, 1:].flatten())


def squared(model: nn.Module, batch: Any) -> Tensor:
    """The mean squared error, and a second term on the first output."""
    out = model(batch["x"])
    return F.mse_loss(out, batch["y"]) + F.l1_loss(out[:, 0], batch["y"][:, 0])


def words() -> dict[str, Tensor]:
    """Six sequences that all differ from the first token on, the last two of them padded."""
    ids = torch.randint(0, 20, (6, 8), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = torch.arange(6)
    mask = torch.ones(6, 8, dtype=torch.long)
    mask[4:, 6:] = 0
    return {"ids": ids, "mask": mask}


IMAGES = Program(
    "plain/Convolutions", "plain", Convolutions, lambda: (fixed(8, 3, 8, 8), torch.arange(8) % 4), classified,
    0.2, 150, 1e-2, traits=frozenset({"image", "labels", "batchnorm", "norm", "conv"}),
)  # fmt: skip
TOKENS = Program(
    "plain/Words", "plain", Words, words, next_token, 0.1, 200, 1e-2,
    traits=frozenset({"ids", "causal", "attention", "attention_mask", "padding", "norm", "tied", "embedding"}),
)  # fmt: skip
SERIES = Program(
    "other/Signal", "other", Signal, lambda: {"x": fixed(6, 7, 6), "y": 2 * fixed(6, 2) + 1}, squared, 0.5, 200, 1e-2,
    traits=frozenset({"regression", "terms", "dropout", "recurrent"}), given={"stochastic": True},
)  # fmt: skip
PROGRAMS = (IMAGES, TOKENS, SERIES)
