"""`unused` names what gets no gradient on purpose: a network that runs without gradients as a whole is meant."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pytest_overfit import run_overfit

BATCH = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


class Two(nn.Module):
    """A network, and another one that says what to aim for."""

    def __init__(self, *, spare: bool = False) -> None:
        super().__init__()
        self.online = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))
        self.aim = nn.ModuleDict({"body": copy.deepcopy(self.online)})
        if spare:
            self.aim["spare"] = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            aim = self.aim["body"](x)
        output: Tensor = self.online(x) + 0.01 * aim
        return output


def test_a_network_without_gradients_is_declared_as_a_whole() -> None:
    result = run_overfit(Two, BATCH, nn.CrossEntropyLoss(), unused=["aim.*"])
    assert result.passed, result.failure_text()


def test_without_a_word_it_is_cut_off() -> None:
    result = run_overfit(Two, BATCH, nn.CrossEntropyLoss())
    assert [cause.id for cause in result.causes] == ["no-gradient"]


def test_a_glob_for_what_is_never_read_does_not_cover_what_is_cut_off() -> None:
    """It was written for the spare layer."""
    result = run_overfit(lambda: Two(spare=True), BATCH, nn.CrossEntropyLoss(), unused=["aim.*"])
    assert [cause.id for cause in result.causes] == ["no-gradient"]
