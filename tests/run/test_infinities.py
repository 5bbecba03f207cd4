"""What may be infinite: masks and bounds from the first step on, and what is declared; all else has gone wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.errors import ConfigError
from pytest_overfit.run.infinities import Infinities


class Returns(nn.Module):
    """A network that returns its logits, and what somebody makes of them in each step."""

    def __init__(self, more: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.net, self.more, self.steps = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3)), more, 0
        self.register_buffer("largest", torch.tensor(0.0))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.net(x)
        self.steps += self.training
        return {"logits": logits, "more": self.more(logits, self.steps)}


def run(more: Callable[[Tensor, int], Tensor], **settings: Any) -> OverfitResult:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0])["logits"], batch[1])

    torch.manual_seed(0)
    data = torch.randn(6, 4), torch.arange(6) % 3
    return run_overfit(lambda: Returns(more), data, loss, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), **settings)


def masked(logits: Tensor, step: int) -> Tensor:
    """Scores of which one class is ruled out."""
    return logits.masked_fill(torch.tensor([False, False, True]), -math.inf)


def bound(logits: Tensor, step: int) -> Tensor:
    """The support of a distribution without an end."""
    return torch.full((3,), math.inf)


@pytest.mark.parametrize("more", [masked, bound])
def test_what_is_infinite_from_the_start_in_the_same_places_is_meant(more: Callable[[Tensor, int], Tensor]) -> None:
    """A mask of minus infinity, a bound without an end."""
    assert run(more).passed


@pytest.mark.parametrize(
    "more",
    [
        lambda logits, step: masked(logits, step) + (math.nan if step > 5 else 0),
        lambda logits, step: logits / (0.0 if step > 5 else 1.0),
        lambda logits, step: masked(logits, step).roll(int(step > 5), 1),
        lambda logits, step: logits.exp() * math.inf,
    ],
    ids=["nan later", "infinite later", "elsewhere later", "overflow with a gradient"],
)
def test_what_becomes_infinite_has_gone_wrong(more: Callable[[Tensor, int], Tensor]) -> None:
    """The prediction is named, and its step; declared it is not judged."""
    bad = run(more).record.non_finite
    assert bad is not None
    assert bad.what == "prediction more"
    assert run(more, infinite="mo*").passed


def test_a_buffer_and_a_term_can_be_declared() -> None:
    """A buffer that grows beyond every number, a metric that ends at infinity."""

    def psnr(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        model.get_buffer("largest").add_(math.inf)
        loss = F.cross_entropy(model(batch[0])["logits"], batch[1])
        return {"objective": loss, "psnr": 1 / (loss.detach() * 0)}

    def ask(**settings: Any) -> OverfitResult:
        torch.manual_seed(0)
        model, data = Returns(lambda logits, _: logits), (torch.randn(6, 4), torch.arange(6) % 3)
        return run_overfit(model, data, psnr, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), **settings)

    assert ask(infinite=["largest", "psnr"]).passed
    for declared, what in (("largest", "loss term psnr"), ("psnr", "buffer largest")):
        bad = ask(infinite=declared).record.non_finite
        assert bad is not None
        assert bad.what == what


def test_a_declaration_of_a_wrong_kind_is_an_error() -> None:
    """Globs are text."""
    with pytest.raises(ConfigError, match="infinite"):
        run(masked, infinite=3)


def test_an_output_that_is_infinite_as_a_whole_is_no_mask() -> None:
    """Nothing of it would be left."""
    assert not Infinities().is_sound("scores", torch.full((3,), -math.inf, requires_grad=True))
