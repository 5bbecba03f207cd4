"""local-attention: language models that look back over a window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from local_attention import LocalTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers

TRAITS = frozenset(["ids", "causal", "attention", "norm", "residual", "embedding"])


def words() -> Tensor:
    """Sentences that differ from their first token on."""
    ids = integers(0, 24, 4, 16)
    ids[:, 0] = integers(0, 4, 1)[0] + 4 * ids.new_tensor([0, 1, 2, 3])
    return ids


def next_token(model: nn.Module, ids: Any) -> Tensor:
    """Cross entropy of the next tokens."""
    logits = model(ids)[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def own(model: nn.Module, ids: Any) -> Tensor:
    """The loss that the model computes of its own."""
    loss: Tensor = model(ids, return_loss=True)
    return loss


def model(**settings: Any) -> nn.Module:
    """A tiny one: windows of four tokens."""
    sizes = {"num_tokens": 24, "max_seq_len": 16, "dim": 32, "depth": 2, "heads": 2, "dim_head": 16}
    return LocalTransformer(**sizes, local_attn_window_size=4, **settings)


def programs() -> Iterator[Program]:
    """By how positions are told."""
    for name, settings, loss in (
        ("LocalTransformer", {}, next_token),
        ("LocalTransformer-xpos", {"use_xpos": True, "num_residual_streams": 1}, own),
        ("LocalTransformer-dynamic", {"use_dynamic_pos_bias": True, "num_residual_streams": 1}, next_token),
    ):
        yield Program(
            f"local_attention/{name}", "local_attention", lambda settings=settings: model(**settings), words, loss,
            0.05, lr=3e-3, traits=TRAITS,
        )  # fmt: skip
