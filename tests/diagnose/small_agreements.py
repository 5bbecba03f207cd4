"""What the tests of agreement are made of: a regression, steps of it, and the causes that are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit import OverfitResult
from pytest_overfit.diagnose.agreement import Agreement

Step = Callable[..., Tensor]


def regression(rows: int = 6) -> dict[str, Tensor]:
    """Sequences of which the first ones count a few places, the others all."""
    source = torch.Generator().manual_seed(0)
    mask = torch.ones(rows, 5)
    mask[: rows // 2, 1:] = 0
    return {
        "x": torch.randn(rows, 5, 4, generator=source),
        "y": torch.randn(rows, 5, generator=source),
        "counts": mask,
    }


def net(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 64), *more, nn.Tanh(), nn.Linear(64, 1))


def accumulating(part_loss: Callable[[Tensor, Tensor, Tensor], Tensor], parts: int = 3) -> Step:
    """A step over micro-batches of two samples; ``part_loss`` has prediction, part and whole."""

    def step(model: nn.Module, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for at in range(parts):
            part = {key: value.chunk(parts)[at] for key, value in batch.items()}
            error = (model(part["x"])[..., 0] - part["y"]).square() * part["counts"]
            loss = part_loss(error, part["counts"], batch["counts"])
            loss.backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        optimizer.step()
        return total

    return step


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def found(result: OverfitResult) -> Agreement:
    """What was measured of the trained model."""
    assert result.evidence is not None
    assert result.evidence.probed.agreement is not None
    return result.evidence.probed.agreement
