"""What is advised names what is to be changed: the operation, the argument, the direction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.diagnose.cause import Cause


def first(model: Any, batch: Any, loss: Any, **settings: Any) -> Cause:
    torch.manual_seed(0)
    given: dict[str, Any] = {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 300, "objective": 0.1}
    result = run_overfit(model, batch, loss, **given | settings)
    assert not result.passed
    return result.causes[0]


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(0)
        return x - mean


class Always(nn.BatchNorm1d):
    def train(self, mode: bool = True) -> Always:
        return self


@pytest.mark.parametrize(
    ("norm", "said"),
    [
        (Centred, "mean() in test_advice.py:{} makes (16,) of [(9, 16)]"),
        (lambda: Always(16), "let model.eval() reach 1: in evaluation mode too it normalises by the batch"),
    ],
)
def test_what_normalises_by_the_batch(norm: Any, said: str) -> None:
    model = lambda: nn.Sequential(nn.Linear(8, 16), norm(), nn.Tanh(), nn.Linear(16, 3))  # noqa: E731
    cause = first(model, (torch.randn(9, 8), torch.arange(9) % 3), nn.CrossEntropyLoss())
    assert cause.id == "batch-mixing"
    assert said.format(Centred.forward.__code__.co_firstlineno + 1) in cause.advice


@pytest.mark.parametrize("swapped", [True, False])
def test_arguments_of_a_loss_that_are_swapped(swapped: bool) -> None:
    """Against labels of another range than 0 to 1."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        out = model(batch[0])
        if swapped:
            return F.binary_cross_entropy_with_logits(batch[1], out)
        return F.binary_cross_entropy_with_logits(out, 2 * batch[1] - 1)

    net = lambda: nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))  # noqa: E731
    cause = first(net, (torch.randn(9, 8), (torch.randn(9, 2) > 0).float()), loss)
    assert cause.id == "target-mismatch"
    mended = "return F.binary_cross_entropy_with_logits(out, batch[1])"
    assert cause.advice.endswith(mended) if swapped else cause.advice.startswith("map the labels to 0 and 1")


def test_one_target_for_both_of_two_samples() -> None:
    net = lambda: nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))  # noqa: E731
    loss = lambda model, b: F.mse_loss(model(b[0]), b[1][:1].expand(2, 2))  # noqa: E731
    cause = first(net, (torch.randn(2, 8), torch.randn(2, 2)), loss)
    assert cause.advice.startswith("compare every sample with its own target: target[:1]")


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn, self.head = nn.Embedding(20, 32), nn.GRU(32, 32, batch_first=True), nn.Linear(32, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(tokens))[0])  # type: ignore[no-any-return]


@pytest.mark.parametrize(("past", "said"), [(True, "the other way: tokens[:, :-1] in"), (False, "by one place")])
def test_targets_that_are_shifted_the_wrong_way_or_not_at_all(past: bool, said: str) -> None:
    def loss(model: nn.Module, tokens: Tensor) -> Tensor:
        out = model(tokens)
        return F.cross_entropy(out.flatten(0, 1), (tokens.roll(1, 1) if past else tokens).flatten())

    cause = first(Causal, torch.randint(0, 20, (3, 10)), loss)
    assert cause.id in ("leak", "target-mismatch")
    assert f"shift the targets {said}" in cause.advice


def elsewhere(out: Tensor, to: Tensor) -> Tensor:
    return F.mse_loss(out, to, reduction="none").mean()


def test_a_keyword_that_is_said_elsewhere_is_no_line_to_change() -> None:
    """The loss is divided once too often: a reduction has nothing to do with it."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return elsewhere(model(batch[0]), batch[1]) / 48

    net = lambda: nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))  # noqa: E731
    cause = first(net, (torch.randn(9, 8), torch.randn(9, 2)), loss)
    assert cause.id == "loss-scale"
    assert cause.advice.startswith("leave out the factor of")
