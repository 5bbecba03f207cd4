"""g-mlp-pytorch: networks that mix tokens by gates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from g_mlp_pytorch import gMLP, gMLPVision
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, integers, normal


def next_token(model: nn.Module, ids: Any) -> Tensor:
    """Cross entropy of the next tokens."""
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def programs() -> Iterator[Program]:
    """Images, then tokens."""
    library = "g_mlp_pytorch"
    yield Program(
        f"{library}/gMLPVision",
        library,
        lambda: gMLPVision(image_size=16, patch_size=4, num_classes=4, dim=32, depth=2),
        lambda: (normal(8, 3, 16, 16), classes(8, 4)),
        cross_entropy, 0.01, traits=frozenset(["image", "labels", "norm", "residual", "tuple"]),
    )  # fmt: skip
    yield Program(
        f"{library}/gMLP",
        library,
        lambda: gMLP(num_tokens=20, dim=32, depth=2, seq_len=12, causal=True, attn_dim=16),
        lambda: integers(0, 20, 3, 12),
        next_token, 0.1, lr=3e-3, traits=frozenset(["ids", "causal", "norm", "residual", "embedding", "attention"]),
    )  # fmt: skip
    yield Program(
        f"{library}/gMLP-circulant",
        library,
        lambda: gMLP(num_tokens=20, dim=32, depth=1, seq_len=12, circulant_matrix=True, heads=2),
        lambda: (integers(0, 20, 4, 12), integers(0, 20, 4, 12, seed=1)),
        lambda model, batch: F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten()),
        0.1, lr=3e-3, traits=frozenset(["ids", "labels", "norm", "residual", "embedding", "tuple"]),
    )  # fmt: skip
