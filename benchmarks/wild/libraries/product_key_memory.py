"""product-key-memory: values that are looked up by two halves of a key."""

from __future__ import annotations

from collections.abc import Iterator

from product_key_memory import PKM
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.parts import classes, cross_entropy, normal


class Memory(nn.Module):
    """A layer, the memory beside it, and a class."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm, self.head = nn.Linear(6, 32), nn.LayerNorm(32), nn.Linear(32, 4)
        self.memory = PKM(32, heads=2, num_keys=4, topk=4, dim_head=16)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each sequence."""
        x = self.enter(x)
        out: Tensor = self.head(self.norm(x + self.memory(x)).mean(1))
        return out


def programs() -> Iterator[Program]:
    """Sequences of numbers."""
    yield Program(
        "product_key_memory/PKM", "product_key_memory", Memory, lambda: (normal(8, 6, 6), classes(8, 4)), cross_entropy,
        0.02, lr=3e-3, traits=frozenset(["attention", "norm", "residual", "labels", "tuple", "embedding"]),
    )  # fmt: skip
