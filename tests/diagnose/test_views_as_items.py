"""A batch that is a list of views: terms of one view each, and a loop that keeps its last sample only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit import run_overfit

View = dict[str, Tensor]


def ran(loss: Any) -> list[str]:
    torch.manual_seed(0)
    views = [{"image": torch.randn(1, 6), "points": torch.randn(1, 4), "pose": torch.randn(1, 4)} for _ in range(2)]
    model = nn.Sequential(nn.Linear(6, 48), nn.Tanh(), nn.Linear(48, 4))
    adam = lambda p: torch.optim.Adam(p, lr=1e-2)  # noqa: E731
    return [cause.id for cause in run_overfit(model, views, loss, optimizer=adam, max_steps=300).causes]


def per_view(model: nn.Module, views: list[View]) -> dict[str, Tensor]:
    """All in the first view's frame: the pose of the second one is of no use."""
    terms = [(model(view["image"]) - view["points"] - views[0]["pose"]).square().mean() for view in views]
    return {"objective": terms[0] + terms[1], "first": terms[0], "second": terms[1]}


def last_one(model: nn.Module, views: list[View]) -> dict[str, Tensor]:
    points = torch.zeros(())
    for view in views:
        points = (model(view["image"]) - view["points"]).square().mean()
    size = sum(model(view["image"]).square().mean() * view["pose"].square().mean() for view in views)
    return {"objective": points + 1e-4 * size, "points": points, "size": 1e-4 * size}


def test_a_term_for_each_view_is_meant() -> None:
    """Each reads its own view."""
    assert ran(per_view) == []


def test_a_loop_that_keeps_its_last_sample_is_named() -> None:
    """The other term reads both."""
    assert "term-missing" in ran(last_one)
