"""The decoder. Shape legend: B sequences, T tokens, D channels, H heads, V characters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinygpt.text import ALPHABET


@dataclass(frozen=True)
class Settings:
    """Sizes of a decoder."""

    vocabulary: int = len(ALPHABET)
    context: int = 64
    width: int = 48
    heads: int = 4
    layers: int = 2


def hidden(length: int, device: torch.device) -> Tensor:
    """(T, T) bool: True where a token must not look, that is at all later ones."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(diagonal=1)


class Attention(nn.Module):
    """Causal self-attention, (B, T, D) to (B, T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # No bias: softmax ignores what is added to every key, so that one would never get a gradient.
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / (width // self.heads) ** 0.5
        weights = scores.masked_fill(hidden(t, x.device), float("-inf")).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, width))


class Block(nn.Module):
    """Attention and an MLP, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return torch.add(x, self.mlp(self.norm2(x)))


class GPT(nn.Module):
    """Tokens (B, T) to logits (B, T, V) and, where targets are given, their cross entropy."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or Settings()
        self.tokens, self.positions = nn.Embedding(s.vocabulary, s.width), nn.Embedding(s.context, s.width)
        self.blocks = nn.Sequential(*(Block(s.width, s.heads) for _ in range(s.layers)))
        self.norm = nn.LayerNorm(s.width)
        self.head = nn.Linear(s.width, s.vocabulary, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        logits = self.head(self.norm(self.blocks(self.tokens(tokens) + self.positions(places))))
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss

    @torch.no_grad()
    def generate(self, tokens: Tensor, count: int) -> Tensor:
        """The tokens (1, T) and the ``count`` most likely ones after them."""
        for _ in range(count):
            logits, _ = self(tokens[:, -self.settings.context :])
            tokens = torch.cat([tokens, logits[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
        return tokens
