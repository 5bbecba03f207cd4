"""What the programs of this folder are made of: small models, data and optimizers; and the verdict on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit.api import run_overfit
from pytest_overfit.result import OverfitResult

Program = Callable[[], dict[str, Any]]
CE = nn.CrossEntropyLoss()


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 3))


def labelled(samples: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 8, generator=generator), torch.arange(samples) % 3


def measured(samples: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 8, generator=generator), 3 * torch.randn(samples, 3, generator=generator)


def adam(rate: float) -> Callable[[Any], Any]:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def mostly(special: Callable[[Tensor], bool], rate: float) -> Callable[[Any], Any]:
    """An optimizer under which some parameters learn, and the others hardly."""

    def optimizer(parameters: Any) -> Any:
        given = list(parameters)
        groups = [[p for p in given if special(p)], [p for p in given if not special(p)]]
        return torch.optim.Adam([{"params": groups[0], "lr": rate}, {"params": groups[1], "lr": 1e-4}])

    return optimizer


class Weighted(nn.Module):
    """A net with one number of its own beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.weight = net(), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class Gated(nn.Module):
    """A net with a gate for every sample."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.gate = net(), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Any:
        return self.inner(x), torch.sigmoid(self.gate(x))[:, 0]


def one_step(model: Any, batch: tuple[Tensor, Tensor], optimizer: Any, factor: float = 1.0) -> Tensor:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(batch[0]), batch[1]) * factor
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


def verdict(program: Program, **settings: Any) -> OverfitResult:
    """The verdict on a program, without a diagnosis: the criteria have to find it."""
    torch.manual_seed(0)
    given = {**program(), "diagnose": False, **settings}
    return run_overfit(given.pop("model"), given.pop("data"), given.pop("loss", None), **given)


def expect_red(program: Program, text: str) -> None:
    """The run meets every limit; ``supervised`` says why that proves nothing, and nothing else is missed."""
    result = verdict(program)
    assert [finding.name for finding in result.findings if finding.missed] == ["supervised"]
    assert result.record.stop == "passed"
    assert text in result.finding("supervised").observed
