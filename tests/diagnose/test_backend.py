"""A run that does not learn as it is executed, and does otherwise: the cause is proven by the trial."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit


class Offset(nn.Module):
    """Its first layer is far from zero: half precision has little left of it, and what is compiled loses it all."""

    def __init__(self, size: float = 0.0) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 32), nn.LayerNorm(32), nn.Linear(32, 1)
        nn.init.constant_(self.first.bias, size)

    def forward(self, x: Tensor) -> Tensor:
        made = self.norm(self.first(x))
        if torch.compiler.is_compiling():
            made = made.detach() * 0
        out: Tensor = self.last(torch.tanh(made))
        return out


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 4, generator=generator), torch.randn(8, 1, generator=generator)


def test_low_precision_is_proven_by_full_precision() -> None:
    """The trial is the first that is made."""
    torch.manual_seed(0)
    result = run_overfit(Offset(4096.0), batch(), F.mse_loss, lr=0.02, amp="bfloat16", max_steps=200)
    (cause,) = [cause for cause in result.causes if cause.id == "backend"]
    assert (cause.strength, cause.where) == ("proven", "mixed precision")
    assert "in full precision" in cause.observed


def test_compiled_is_proven_by_eager() -> None:
    """By the run itself, whatever was compiled: here the graph that dynamo takes, without a compiler."""
    torch.manual_seed(0)
    model = torch.compile(Offset(), backend="eager")
    result = run_overfit(model, batch(), F.mse_loss, lr=0.02, max_steps=200, diagnose_seconds=600)
    (cause,) = [cause for cause in result.causes if cause.id == "backend"]
    assert (cause.strength, cause.where) == ("proven", "torch.compile")


@pytest.mark.parametrize("amp", [False, "bfloat16"])
def test_a_run_that_does_not_learn_either_way_has_another_cause(amp: str | bool) -> None:
    """Nothing is blamed that takes nothing away."""
    torch.manual_seed(0)
    result = run_overfit(Offset(), batch(), F.mse_loss, lr=1e-7, amp=amp, max_steps=60)
    assert "backend" not in [cause.id for cause in result.causes]
    assert result.causes
