"""st-moe-pytorch: a mixture of experts that keeps its gates balanced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from st_moe_pytorch import MoE
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, normal


class Sparse(nn.Module):
    """A mixture between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 32), nn.Linear(32, 5)
        self.mixture = MoE(dim=32, num_experts=4, gating_top_n=2, threshold_train=0.2, capacity_factor_train=2.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of every token, and the loss that keeps experts balanced."""
        x = self.stem(x)
        out = self.mixture(x)
        return self.head(x + out.outputs), out.total_aux_loss


def tokens() -> dict[str, Tensor]:
    """Vectors, and the class of each."""
    return {"x": normal(2, 12, 8), "label": integers(0, 5, 2, 12, seed=1)}


def balanced(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy, and the balance."""
    logits, balance = model(batch["x"])
    return F.cross_entropy(logits.flatten(0, 1), batch["label"].flatten()) + balance


def programs() -> Iterator[Program]:
    """With the noise of its gates."""
    yield Program(
        "st_moe_pytorch/MoE",
        "st_moe_pytorch",
        Sparse,
        tokens,
        balanced,
        0.05,
        lr=3e-3,
        steps=300,
        given={"stochastic": True},
        traits=frozenset(["experts", "labels", "terms", "dict", "tuple", "residual", "stochastic"]),
    )
