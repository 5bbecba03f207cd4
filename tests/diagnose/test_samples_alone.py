"""What every sample costs by itself, at the end of a run whose objective is low: those that it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from tests.support.chinese import assert_chinese

Batch = dict[str, Tensor]
SOURCE = torch.Generator().manual_seed(5)
WORDS, KIND = torch.randint(1, 40, (10, 5), generator=SOURCE), torch.arange(10) % 3
X, Y = torch.randn(10, 6, generator=SOURCE), torch.randn(10, 2, generator=SOURCE)


def words() -> nn.Module:
    return nn.Sequential(nn.Embedding(40, 24), nn.Flatten(), nn.Linear(120, 32), nn.Tanh(), nn.Linear(32, 3))


def numbers() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 48), nn.BatchNorm1d(48), nn.Tanh(), nn.Linear(48, 2))


def learn(model: Any, batch: Any, loss: Callable[[nn.Module, Any], Tensor], **more: Any) -> OverfitResult:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, 1e-2), "objective": 0.05, "max_steps": 500}
    return run_overfit(model, batch, loss, **{**settings, **more})


def certain(result: OverfitResult) -> list[str]:
    return [cause.id for cause in result.causes if cause.certain]


def in_chunks(size: int, whole: bool) -> Callable[[nn.Module, Batch], Tensor]:
    """The mean of the losses of chunks; those of ``len(x) // size`` alone, or what is left over as well."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        count = len(batch["kind"])
        starts = range(0, count if whole else count // size * size, size)
        parts = [slice(start, min(start + size, count)) for start in starts]
        return torch.stack([F.cross_entropy(model(batch["x"][at]), batch["kind"][at]) for at in parts]).mean()

    return loss


def mined(easiest: bool, share: int = 3) -> Callable[[nn.Module, Batch], Tensor]:
    """The mean over all but a third of the samples: over those that are the easiest, or the hardest."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        count = len(batch["y"])
        rows = F.mse_loss(model(batch["x"]), batch["y"], reduction="none").reshape(count, -1).mean(1)
        return rows.topk(count - count // share, largest=not easiest).values.mean()

    return loss


def contrasted(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(F.normalize(model(batch["x"]), dim=1) @ batch["key"].T / 0.02, torch.arange(10))


def weighed(model: nn.Module, batch: Batch) -> Tensor:
    rows = F.mse_loss(model(batch["x"]), batch["y"], reduction="none").mean(1)
    return (rows * batch["weight"]).sum() / batch["weight"].sum()


def test_a_chunk_that_is_left_over_is_not_learnt() -> None:
    batch = {"x": WORDS, "kind": KIND}
    result = learn(words, batch, in_chunks(4, whole=False))
    assert certain(result) == ["unsupervised"]
    assert result.causes[0].where == "samples 8, 9"
    assert_chinese(result.causes[0])
    assert learn(words, batch, in_chunks(4, whole=True)).passed


def test_easy_samples_alone_are_not_what_is_mined() -> None:
    batch = {"x": X, "y": Y}
    result = learn(numbers, batch, mined(easiest=True))
    assert certain(result) == ["unsupervised"]
    assert "by themselves an objective of" in result.causes[0].observed
    assert learn(numbers, batch, mined(easiest=False)).passed


@pytest.mark.parametrize("loss", [contrasted, weighed])
def test_objectives_that_compare_or_weigh_samples_say_nothing(loss: Callable[[nn.Module, Batch], Tensor]) -> None:
    angles = 0.2 * torch.pi * torch.arange(10)
    batch = {"x": X, "y": Y, "key": torch.stack((angles.cos(), angles.sin()), 1), "weight": (KIND != 2).float()}
    assert learn(numbers, batch, loss).passed
