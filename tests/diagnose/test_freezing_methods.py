"""A method that would freeze is asked where a flag or the user says so, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_overfit import run_overfit

BATCH = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


class Encoded(nn.Module):
    """With a method that sets a flag, as libraries of encoders have."""

    def __init__(self, *, frozen: bool = False, freeze: bool = False) -> None:
        super().__init__()
        self.encoder, self.head = nn.Sequential(nn.Linear(4, 64), nn.Tanh()), nn.Linear(64, 3)
        self.is_encoder_frozen, self.called = frozen, 0
        if freeze:
            self.freeze_encoder()

    def freeze_encoder(self) -> None:
        self.called += 1
        self.is_encoder_frozen = True
        for parameter in self.encoder.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.encoder(x))
        return output


def test_a_method_that_nobody_asks_for_is_not_called() -> None:
    model = Encoded()
    result = run_overfit(model, BATCH, nn.CrossEntropyLoss())
    assert result.passed, result.failure_text()
    assert (model.called, model.is_encoder_frozen) == (0, False)


@pytest.mark.parametrize(
    ("flag", "declared"),
    [(True, ()), (False, ("encoder.*",)), (True, ("encoder.*",))],
    ids=["flag", "declared", "both"],
)
def test_what_says_that_it_is_frozen_and_moves(flag: bool, declared: tuple[str, ...]) -> None:
    model = Encoded(frozen=flag)
    result = run_overfit(model, BATCH, nn.CrossEntropyLoss(), frozen=list(declared))
    assert not result.passed
    assert result.causes[0].id == "not-frozen"
    assert "freeze_encoder()" in result.causes[0].advice
    assert (model.called, model.is_encoder_frozen) == (0, flag)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_is_frozen_is_fine() -> None:
    result = run_overfit(Encoded(freeze=True), BATCH, nn.CrossEntropyLoss(), lr=0.01)
    assert result.passed, result.failure_text()
