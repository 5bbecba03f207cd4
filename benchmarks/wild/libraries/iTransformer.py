# ruff: noqa: N999 - as the package is called
"""iTransformer: forecasts of several series, which attend to each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iTransformer import iTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import normal

SIZE = {"num_variates": 3, "lookback_len": 16, "dim": 32, "depth": 1, "heads": 2, "dim_head": 16}


def history() -> dict[str, Tensor]:
    """Sixteen moments of three series, and the four and eight that follow."""
    return {"past": normal(4, 16, 3), "near": normal(4, 4, 3, seed=1), "far": normal(4, 8, 3, seed=2)}


def near(model: nn.Module, batch: Any) -> Tensor:
    """The error of the next four moments."""
    return F.mse_loss(model(batch["past"]), batch["near"])


def both(model: nn.Module, batch: Any) -> Tensor:
    """The error of both horizons."""
    told = model(batch["past"])
    return F.mse_loss(told[4], batch["near"]) + F.mse_loss(told[8], batch["far"])


def programs() -> Iterator[Program]:
    """One horizon, and two."""
    traits = "attention norm residual regression dict"
    yield Program(
        "iTransformer/iTransformer", "iTransformer",
        lambda: iTransformer(**SIZE, pred_length=4, num_residual_streams=1),
        lambda: {name: each for name, each in history().items() if name != "far"}, near, 0.05, lr=3e-3,
        traits=frozenset(traits.split()),
    )  # fmt: skip
    yield Program(
        "iTransformer/iTransformer-horizons", "iTransformer",
        lambda: iTransformer(**SIZE, pred_length=(4, 8), use_reversible_instance_norm=True, num_residual_streams=2),
        history, both, 0.1, lr=3e-3, traits=frozenset(f"{traits} terms".split()),
    )  # fmt: skip
