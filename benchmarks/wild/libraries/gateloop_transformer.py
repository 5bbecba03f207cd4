"""gateloop-transformer: language models whose state is gated, by complex numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateloop_transformer import Transformer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers

SIZE = {"num_tokens": 20, "dim": 32, "depth": 1, "dim_head": 16, "heads": 2}
TRAITS = frozenset(["ids", "causal", "norm", "residual", "embedding"])


def next_token(model: nn.Module, ids: Any) -> Tensor:
    """Cross entropy of the next tokens."""
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def own(model: nn.Module, ids: Any) -> Tensor:
    """The loss that the model computes of its own."""
    loss: Tensor = model(ids, return_loss=True)
    return loss


def programs() -> Iterator[Program]:
    """With complex states, with real ones, and with attention."""
    library = "gateloop_transformer"
    for name, settings, loss in (
        ("Transformer", {"checkpoint_gate_looped_attn": False}, own),
        ("Transformer-real", {"ablate_complex": True, "checkpoint_gate_looped_attn": True}, next_token),
        ("Transformer-attention", {"use_gate_looped_attn": False, "rotary_emb": True}, next_token),
    ):
        yield Program(
            f"{library}/{name}", library, lambda settings=settings: Transformer(**SIZE, **settings),
            lambda: integers(0, 20, 3, 12), loss, 0.15, lr=3e-3, traits=TRAITS,
        )  # fmt: skip
