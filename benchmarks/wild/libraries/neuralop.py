"""neuraloperator: operators between functions, in the frequencies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from neuralop.losses import H1Loss, LpLoss
from neuralop.models import FNO, TFNO
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import uniform


def fields() -> dict[str, Tensor]:
    """Smooth fields, and what a diffusion makes of them."""
    x = F.interpolate(uniform(4, 1, 4, 4), (16, 16), mode="bicubic")
    y = F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    return {"x": x, "y": (y - y.mean()) / y.std()}


def relative(model: nn.Module, batch: Any) -> Tensor:
    """The relative error."""
    loss: Tensor = LpLoss(d=2, p=2)(model(batch["x"]), batch["y"]) / 4
    return loss


def with_slopes(model: nn.Module, batch: Any) -> Tensor:
    """The relative error of values and slopes."""
    loss: Tensor = H1Loss(d=2)(model(batch["x"]), batch["y"]) / 4
    return loss


def lines(model: nn.Module, batch: Any) -> Tensor:
    """The squared error."""
    return F.mse_loss(model(batch[0]), batch[1])


def waves() -> tuple[Tensor, Tensor]:
    """Waves on a line, and their integrals."""
    place = torch.linspace(0, 6.28, 32)
    x = torch.stack([torch.sin(k * place) for k in (1.0, 2.0, 3.0)])[:, None]
    return x, 0.2 * x.cumsum(-1)


def programs() -> Iterator[Program]:
    """Full and factorised weights."""
    traits = frozenset(["regression", "complex", "dict", "operator"])
    yield Program(
        "neuralop/FNO",
        "neuralop",
        lambda: FNO((8, 8), 1, 1, 16, n_layers=2),
        fields,
        relative,
        0.08,
        lr=5e-3,
        traits=traits,
    )
    yield Program(
        "neuralop/FNO-1d",
        "neuralop",
        lambda: FNO((8,), 1, 1, 16, n_layers=2),
        waves,
        lines,
        0.01,
        lr=5e-3,
        traits=traits - {"dict"},
    )
    yield Program(
        "neuralop/TFNO",
        "neuralop",
        lambda: TFNO((8, 8), 1, 1, 16, n_layers=2, factorization="tucker", rank=0.3),
        fields,
        with_slopes,
        0.07,
        lr=5e-3,
        traits=traits,
    )
