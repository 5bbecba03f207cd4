"""tab-transformer-pytorch: tables, by attention over their columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tab_transformer_pytorch import FTTransformer, TabTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, normal


def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Categories and numbers of each row, and whether it is one."""
    return integers(0, 4, 8, 3), normal(8, 5), integers(0, 2, 8, 1, seed=1).float()


def binary(model: nn.Module, batch: Any) -> Tensor:
    """Binary cross entropy."""
    categories, numbers, label = batch
    return F.binary_cross_entropy_with_logits(model(categories, numbers), label)


def programs() -> Iterator[Program]:
    """With the dropout of the library's examples."""
    size = {"categories": (4, 4, 4), "num_continuous": 5, "dim": 16, "depth": 2, "heads": 2, "dim_head": 8}
    dropout = {"attn_dropout": 0.1, "ff_dropout": 0.1}
    traits = frozenset(["table", "tuple", "attention", "norm", "residual", "embedding", "dropout"])
    for name, network in (("TabTransformer", TabTransformer), ("FTTransformer", FTTransformer)):
        yield Program(
            f"tab_transformer_pytorch/{name}",
            "tab_transformer_pytorch",
            lambda network=network: network(**size, **dropout),
            rows,
            binary,
            0.05,
            lr=3e-3,
            given={"stochastic": True},
            traits=traits,
        )
