"""Designs that are meant and look like a mistake, each beside the mistake that its rule is for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit


def data(samples: int = 8) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.randn(samples, 8, generator=source), torch.randint(0, 3, (samples,), generator=source)


def learn(model: Any, batch: Any, loss: Any = None, *, rate: float = 1e-2, **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, lr=rate), "max_steps": 400, **settings}
    return run_overfit(model, batch, loss or (None if "step" in settings else nn.CrossEntropyLoss()), **settings)


def certain(result: OverfitResult) -> list[str]:
    """The ids of what turns a run red."""
    return [cause.id for cause in result.causes if cause.certain]


def net(width: int = 32, out: int = 3, given: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, width), nn.Tanh(), nn.Linear(width, out))


@pytest.mark.parametrize(("rate", "found"), [(1e-2, []), (3.0, ["lr-group"])])
def test_a_new_head_grows_from_next_to_nothing(rate: float, found: list[str]) -> None:
    """At a hundred times the rate of its backbone and more: fine-tuning. What is wild moves any weight."""
    torch.manual_seed(0)
    model = net(64)
    nn.init.normal_(model[2].weight, std=1e-3)
    groups = [{"params": model[0].parameters(), "lr": 2e-5}, {"params": model[2].parameters(), "lr": rate}]
    assert certain(learn(model, data(), optimizer=torch.optim.Adam(groups))) == found


class Rounds(nn.Module):
    """A state that is refined without gradients, and once with them; or what is added without any."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds, self.read, self.again, self.head = rounds, nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        read = self.read(x)
        state = torch.zeros_like(read)
        with torch.no_grad():
            for _ in range(self.rounds):
                state = (self.again(state) + read).tanh()
            cut = 3 * read.tanh()
        state = (self.again(state) + read).tanh() if self.rounds else read + self.again(read) + cut
        return self.head(state)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("rounds", "found"), [(9, []), (0, ["no-gradient"])])
def test_only_the_last_round_is_differentiated(rounds: int, found: list[str]) -> None:
    assert certain(learn(lambda: Rounds(rounds), data())) == found


class Probed(nn.Module):
    """A second head reads the same features, which it may not change; or the first one reads half of them so."""

    def __init__(self, beside: bool) -> None:
        super().__init__()
        self.beside, self.trunk = beside, nn.Linear(8, 32)
        self.head, self.probe = nn.Linear(32, 3), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(x).tanh()
        held = hidden.detach()
        return self.head(hidden if self.beside else hidden + 2 * held**2), self.probe(held)


@pytest.mark.parametrize("limits", [{}, {"probe": 0.05}])
@pytest.mark.parametrize(("beside", "found"), [(True, []), (False, ["no-gradient"])])
def test_a_probe_reads_features_that_it_does_not_teach(
    beside: bool, found: list[str], limits: dict[str, float]
) -> None:
    """The other head has its whole gradient. One that has a part of it is cut."""

    def loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        classes, probe = model(batch[0])
        first, second = F.cross_entropy(classes, batch[1]), F.mse_loss(probe, batch[2])
        return {"objective": first + second, "classes": first, "probe": second}

    x, y = data()
    assert certain(learn(lambda: Probed(beside), (x, y, torch.randn(8, 2)), loss, **limits)) == found
