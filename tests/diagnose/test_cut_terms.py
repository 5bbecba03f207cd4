"""A summand of the objective that is cut from the model is told with its share; one cut on purpose is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.result import OverfitResult
from tests.support.chinese import assert_chinese


def batch() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=source), torch.arange(6) % 3


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))


def terms(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    output = model(batch[0])
    return F.cross_entropy(output, batch[1]), 1e-4 * output.square().mean()


def item(model: nn.Module, batch: Any) -> Tensor:
    a, b = terms(model, batch)
    return a.item() + b


def detached(model: nn.Module, batch: Any) -> Tensor:
    a, b = terms(model, batch)
    return a.detach() + b


def floats(model: nn.Module, batch: Any) -> Tensor:
    a, b = terms(model, batch)
    return torch.tensor([float(a), float(b)], requires_grad=True).sum()


def weighed(model: nn.Module, batch: Any) -> Tensor:
    """A weight of its own, by which an uncertain term counts less: it is detached, and changes the gradient."""
    a, b = terms(model, batch)
    return a * torch.exp(-a.detach()) + b


def logged(model: nn.Module, batch: Any) -> Tensor:
    a, b = terms(model, batch)
    SEEN.append(a.item() + float(b))
    return a + b


SEEN: list[float] = []


def result_of(loss: Callable[..., Any], **more: Any) -> OverfitResult:
    return run_overfit(net(), batch(), loss, **{"lr": 1e-2, "max_steps": 60, **more})


@pytest.mark.parametrize(("loss", "by"), [(item, ".item()"), (detached, ".detach()"), (floats, "float()")])
def test_a_summand_that_is_cut_comes_first(loss: Callable[..., Any], by: str) -> None:
    """By what cuts it, where, and with its share; not by the floor that it is."""
    cause = result_of(loss).causes[0]
    assert cause.id == "loss-detached"
    assert f"has no gradient: {by} cuts it from the model" in cause.observed
    assert "test_cut_terms.py:" in cause.where
    assert_chinese(cause)


def halved(model: nn.Module, batch: Any) -> Tensor:
    """A part of the gradient is held back; what is left of it teaches the same."""
    a, b = terms(model, batch)
    return 0.7 * a + 0.3 * a.detach() + b


@pytest.mark.parametrize("loss", [weighed, logged, halved])
def test_what_is_cut_on_purpose_is_no_cause(loss: Callable[..., Any]) -> None:
    """Of runs that fail for another reason: a rate at which nothing moves."""
    result = result_of(loss, lr=1e-9)
    assert not result.passed
    assert "loss-detached" not in [cause.id for cause in result.causes]


def test_a_part_that_is_cut_is_told_beside_the_whole() -> None:
    """Beside a regulariser that is far from through."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        a, b = terms(model, batch)
        return a.detach() + 1e4 * b

    cause = result_of(loss, lr=1e-4).causes[0]
    assert cause.id == "loss-detached"
    assert "of the objective of" in cause.observed
    assert_chinese(cause)
