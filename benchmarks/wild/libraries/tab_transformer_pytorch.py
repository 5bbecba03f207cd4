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
    noise = {"stochastic": True}
    spare = {**noise, "unused": ["special_token_embed.weight"]}  # the library's, for categories that are missing
    networks = (
        ("TabTransformer", spare, lambda: TabTransformer(**size, **dropout, mlp_act=nn.ReLU(), num_residual_streams=1)),
        ("FTTransformer", noise, lambda: FTTransformer(**size, **dropout, num_residual_streams=1)),
    )
    for name, given, network in networks:
        yield Program(
            f"tab_transformer_pytorch/{name}",
            "tab_transformer_pytorch",
            network,
            rows,
            binary,
            0.02,
            lr=3e-3,
            given=given,
            traits=traits,
        )
