"""How often a run that passes asks its model beside its steps: what a large model pays for."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit

MOST = 23  # forward passes of a model of one input and its labels


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))

    def forward(self, x: Tensor) -> Tensor:
        PASSES.append(1)
        return self.layers(x)  # type: ignore[no-any-return]


PASSES: list[int] = []


def test_questions_of_a_run_that_passes_share_their_passes() -> None:
    """One that asks on its own where another has the answer in its graph shows here."""
    PASSES.clear()
    net, batch = Counted(), (torch.randn(8, 16), torch.arange(8) % 4)
    result = run_overfit(net, batch, F.cross_entropy, lr=1e-2, objective=0.05, max_steps=300)
    assert result.passed
    assert not result.not_asked
    assert len(PASSES) - result.record.steps <= MOST
