"""ncps: recurrent networks of continuous time, wired like nerves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from ncps import wirings
from ncps.torch import LTC, CfC
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program


def waves() -> dict[str, Tensor]:
    """Two channels, and what is to be told at each step."""
    time = torch.arange(12.0)
    x = torch.stack([torch.sin(0.5 * time), torch.cos(0.8 * time)], -1).expand(2, 12, 2) * torch.tensor(
        [[[1.0]], [[0.5]]]
    )
    return {
        "x": x.clone(),
        "y": torch.sin(0.9 * x.cumsum(1)[..., :1]),
    }


def told(model: nn.Module, batch: Any) -> Tensor:
    """The squared error at every step."""
    out, _ = model(batch["x"])
    return F.mse_loss(out, batch["y"])


def programs() -> Iterator[Program]:
    """Closed form and differential equation."""
    traits = frozenset(["recurrent", "regression", "dict", "tuple", "series"])
    sizes = {"lr": 2e-2, "steps": 200, "traits": traits}
    yield Program("ncps/CfC-wired", "ncps", lambda: CfC(2, wirings.AutoNCP(20, 1)), waves, told, 0.02, **sizes)
    yield Program(
        "ncps/LTC", "ncps", lambda: LTC(2, wirings.FullyConnected(12, 1), ode_unfolds=3), waves, told, 0.02, **sizes
    )
