"""What a target is: by what the loss teaches for it, and not by its place in a tuple alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit


class Sign(torch.autograd.Function):
    """A step, whose slope is that of a line."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 1).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Binary(nn.Module):
    """Outputs that are 0 or 1, and all 0 before anything is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(5, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return Sign.apply(0.2 * self.head(self.hidden(x).tanh()))  # type: ignore[no-any-return, no-untyped-call]


def labelled() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return torch.randn(8, 5, generator=drawn), torch.arange(8) % 4


def observed(result: OverfitResult, name: str = "supervised") -> str:
    return next(finding.observed for finding in result.findings if finding.name == name)


def classified(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(4 * model(batch[0]), batch[1])


def told_by_itself(model: nn.Module, batch: Any) -> Tensor:
    outputs = model(batch[0])
    told: Tensor = F.cross_entropy(4 * outputs, torch.arange(len(outputs)) % 4) + 0.0 * batch[1].sum()
    return told


def stepped(loss: Any) -> Any:
    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        value = loss(model, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value  # type: ignore[no-any-return]

    return step


@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize(("loss", "deaf"), [(classified, False), (told_by_itself, True)])
def test_a_loss_that_is_flat_in_steps_answers_by_what_it_teaches(loss: Any, deaf: bool, by_step: bool) -> None:
    """Each label gives the same number where all outputs are alike."""
    way = {"step": stepped(loss)} if by_step else {"loss": loss}
    result = run_overfit(Binary, labelled(), **way, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), max_steps=300)
    assert ("does not answer when 1 (the target) changes" in observed(result)) == deaf, observed(result)
    assert "reads little" not in observed(result)


class Two(nn.Module):
    """A code, and a prediction of the other view's."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 8))
        self.predict = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.code(x)
        return self.predict(code), code.detach()


def of_the_whole(model: Any, batch: Any) -> Tensor:
    (told, code), (told_too, code_too) = model(batch[0]), model(batch[1])
    return F.mse_loss(told, code_too) + F.mse_loss(told_too, code)


def of_its_parts(model: Any, batch: Any) -> Tensor:
    codes = [model.code(view) for view in batch]
    return F.mse_loss(model.predict(codes[0]), codes[1].detach()) + F.mse_loss(
        model.predict(codes[1]), codes[0].detach()
    )


def views() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    seen = torch.randn(8, 6, generator=drawn)
    return seen, seen + 0.1 * torch.randn(8, 6, generator=drawn)


@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("loss", [of_the_whole, of_its_parts])
def test_a_view_that_the_model_is_called_with_is_no_target(loss: Any, by_step: bool) -> None:
    """Such a loss is low for other views too: it is its own target."""
    way = {"step": stepped(loss)} if by_step else {"loss": loss}
    result = run_overfit(
        Two, views(), **way, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), max_steps=150, objective=0.1
    )
    assert result.passed, [(f.name, f.observed) for f in result.findings if f.missed]
    supervision = result.record.supervision
    assert supervision is not None
    assert supervision.targets == ()


def test_a_target_that_an_output_after_the_update_depends_on_stays_one() -> None:
    """A step may predict once more."""

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        value: Tensor = stepped(classified)(model, batch, optimizer)
        model(batch[0])
        return value

    optimizer = lambda p: torch.optim.SGD(p, lr=10.0)  # noqa: E731
    supervision = run_overfit(Binary, labelled(), step=step, optimizer=optimizer, max_steps=3).record.supervision
    assert supervision is not None
    assert supervision.targets == ("1",)
