"""linear-attention-transformer: attention without a softmax over all pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from linear_attention_transformer import LinearAttentionTransformer, LinearAttentionTransformerLM
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, normal, padding_mask

SIZES = {"dim": 32, "depth": 1, "max_seq_len": 16, "heads": 2}


def tagged() -> dict[str, Tensor]:
    """Padded sentences, and a class for each token that is there."""
    mask = padding_mask([16, 12, 14, 9], 16)
    labels = integers(0, 5, 4, 16, seed=1)
    return {"ids": integers(1, 24, 4, 16) * mask, "mask": mask.bool(), "labels": labels.masked_fill(mask == 0, -100)}


def tags(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the tokens that are there."""
    logits = model(batch["ids"], input_mask=batch["mask"])
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)


def next_token(model: nn.Module, ids: Any) -> Tensor:
    """Cross entropy of the next tokens."""
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


class Tagger(nn.Module):
    """The model, and a class for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.body = LinearAttentionTransformerLM(num_tokens=24, dim_head=16, return_embeddings=True, **SIZES)
        self.head = nn.Linear(32, 5)

    def forward(self, ids: Tensor, input_mask: Tensor) -> Tensor:
        """Logits of each token."""
        out: Tensor = self.head(self.body(ids, input_mask=input_mask))
        return out


class Forecast(nn.Module):
    """The transformer alone, between two layers, on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, 32), nn.Linear(32, 2)
        self.body = LinearAttentionTransformer(**SIZES, ff_glu=True, shift_tokens=True, causal=True)

    def forward(self, x: Tensor) -> Tensor:
        """Two numbers for each moment."""
        out: Tensor = self.leave(self.body(self.enter(x)))
        return out


def programs() -> Iterator[Program]:
    """Tags under padding, next tokens, numbers."""
    library, common = "linear_attention_transformer", "attention norm residual"
    yield Program(
        f"{library}/Tagger", library, Tagger, tagged, tags, 0.02, lr=3e-3,
        traits=frozenset(f"{common} ids padding dict labels embedding masked".split()),
    )  # fmt: skip
    yield Program(
        f"{library}/LM-causal",
        library,
        lambda: LinearAttentionTransformerLM(num_tokens=24, dim_head=16, causal=True, use_rotary_emb=True, **SIZES),
        lambda: integers(0, 24, 3, 16),
        next_token, 0.15, lr=3e-3, traits=frozenset(f"{common} ids causal embedding".split()),
    )  # fmt: skip
    yield Program(
        f"{library}/Forecast",
        library,
        Forecast,
        lambda: {"x": normal(4, 16, 3), "y": normal(4, 16, 2, seed=1)},
        lambda model, batch: F.mse_loss(model(batch["x"]), batch["y"]),
        0.05, lr=3e-3, traits=frozenset(f"{common} regression causal dict".split()),
    )  # fmt: skip
