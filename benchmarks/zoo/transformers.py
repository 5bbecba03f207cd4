# mypy: disable-error-code="no-any-return"
"""Transformers over tokens: causal, masked, encoder and decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.case import Setup, cases, fixed
from benchmarks.zoo.sequence import PAD, VOCABULARY, sentences
from benchmarks.zoo.vision import adam

Batch = dict[str, Any]


class GPT(nn.Module):
    """A causal transformer whose output layer is its token embedding; positions for more than the batch needs."""

    def __init__(self, width: int = 48, depth: int = 2) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(64, width)
        layer = nn.TransformerEncoderLayer(width, 4, 96, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.tokens(tokens) + self.positions(torch.arange(length))
        return self.head(self.blocks(hidden, mask=mask, is_causal=True))


def next_token(model: nn.Module, batch: Tensor) -> Tensor:
    """Cross entropy of every token but the first, given those before."""
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def gpt_tied_weights() -> Setup:
    """The batch is one tensor of token ids."""
    tokens = torch.randint(0, VOCABULARY, (3, 17), generator=fixed())
    tokens[:, 0] = torch.arange(3)
    return Setup(GPT(), tokens, next_token, optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.1))


class Attention(nn.Module):
    """Self-attention with a bias on query, key and value, as in BERT: softmax cancels the key's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        parts = (self.query(x), self.key(x), self.value(x))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        return self.out(mixed.transpose(1, 2).flatten(2))


class Bert(nn.Module):
    """Two post-norm layers with dropout 0.1, and a masked language model head."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width, padding_idx=PAD)
        self.positions = nn.Embedding(16, width)
        self.attention = nn.ModuleList(Attention(width, 4) for _ in range(2))
        self.inner = nn.ModuleList(nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, width)) for _ in "ab")
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.dropout(self.tokens(tokens) + self.positions.weight[: tokens.shape[1]])
        for index, (attention, inner) in enumerate(zip(self.attention, self.inner, strict=True)):
            x = self.norms[2 * index](x + self.dropout(attention(x, attention_mask)))
            x = self.norms[2 * index + 1](x + self.dropout(inner(x)))
        return self.head(x)


def bert_masked_lm() -> Setup:
    """Masked positions carry their label, the others -100."""
    tokens = sentences()["tokens"]
    hidden = (torch.rand(tokens.shape, generator=fixed(2)) < 0.3) & (tokens != PAD)
    batch = {
        "input_ids": tokens.masked_fill(hidden, 1),
        "attention_mask": tokens != PAD,
        "labels": tokens.masked_fill(~hidden, -100),
    }

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch["input_ids"], batch["attention_mask"])
        right = logits.argmax(-1) == batch["labels"]
        return {
            "objective": F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()),
            "accuracy": right.sum() / (batch["labels"] != -100).sum(),
        }

    return Setup(Bert(), batch, loss)


class Translator(nn.Module):
    """nn.Transformer with masks, one embedding for both languages."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(0.1 * torch.randn(1, 16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.0, batch_first=True, norm_first=True)
        encoder = nn.TransformerEncoder(layer, 1, nn.LayerNorm(width), enable_nested_tensor=False)
        self.net = nn.Transformer(
            width, 4, 1, 1, 64, 0.0, custom_encoder=encoder, batch_first=True, norm_first=True
        )  # fmt: skip
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        padding = source == PAD
        causal = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
        left, right = (self.embed(t) + self.positions[:, : t.shape[1]] for t in (source, target))
        masks = {"src_key_padding_mask": padding, "memory_key_padding_mask": padding}
        return self.head(self.net(left, right, tgt_mask=causal, **masks))


def encoder_decoder_transformer() -> Setup:
    """A tuple of two token tensors as the batch."""
    source = sentences(3, 8)["tokens"]
    target = torch.randint(2, VOCABULARY, (3, 9), generator=fixed(3))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits = model(batch[0], batch[1][:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch[1][:, 1:].flatten())

    return Setup(Translator(), (source, target), loss, optimizer=adam(3e-3))


CASES = cases(
    "transformers", gpt_tied_weights, bert_masked_lm, encoder_decoder_transformer,
)  # fmt: skip
