"""Labels that a loss takes for others: several for one, or the model's own answer; and what may look like it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from tests.support.told import told

SOURCE = torch.Generator().manual_seed(3)
X, LABELS = torch.randn(12, 6, generator=SOURCE), torch.arange(12) % 4
Loss = Callable[[Tensor, Tensor], Tensor]


def learn(model: nn.Module, y: Tensor, loss: Loss, **more: Any) -> OverfitResult:
    torch.manual_seed(0)
    settings = {"optimizer": lambda p: torch.optim.Adam(p, 1e-2), "objective": 0.05, "max_steps": 600, **more}
    return run_overfit(model, {"x": X, "y": y}, lambda m, b: loss(m(b["x"]), b["y"]), **settings)


def net(width: int = 4) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 48), nn.Tanh(), nn.Linear(48, width))


def self_taught(out: Tensor, y: Tensor) -> Tensor:
    known = torch.arange(len(y)) < 6
    return F.cross_entropy(out, torch.where(known, y, out.detach().argmax(1)))


@pytest.mark.parametrize(
    ("loss", "how"),
    [
        pytest.param(lambda o, y: F.cross_entropy(o, y.bool().long()), "labels 1, 2, 3 taken for 1", id="boolean"),
        pytest.param(lambda o, y: F.cross_entropy(o, y.clamp(max=2)), "labels 2, 3 taken for 2", id="clamped"),
        pytest.param(lambda o, y: F.nll_loss(o.log_softmax(1), y % 2), "labels 0, 2 taken for 0", id="wrapped"),
        pytest.param(self_taught, "labels replaced by the model's own answers", id="own answers"),
    ],
)
def test_labels_that_are_others_to_the_loss(loss: Loss, how: str) -> None:
    result = learn(net(), LABELS, loss)
    assert told(result) == "target-mismatch"
    assert result.causes[0].certain
    assert "compares with y " in result.causes[0].observed
    assert how in result.causes[0].observed


@pytest.mark.parametrize(
    ("width", "y", "loss"),
    [
        pytest.param(4, LABELS, F.cross_entropy, id="as they are"),
        pytest.param(4, LABELS, lambda o, y: F.cross_entropy(o, (y + 1) % 3 + (y > 5)), id="others"),
        pytest.param(2, LABELS, lambda o, y: F.cross_entropy(o, y // 2), id="coarser, as many as there are scores"),
        pytest.param(2, LABELS, lambda o, y: F.cross_entropy(o, (y > 0).long()), id="of the foreground"),
        pytest.param(
            4,
            torch.where(LABELS == 3, 255, LABELS),
            lambda o, y: F.cross_entropy(o, torch.where(y == 255, -100, y)),
            id="ignored by another number",
        ),
        pytest.param(
            4, LABELS, lambda o, y: F.cross_entropy(o, torch.where(y == 0, -100, y)), id="one of them is left out"
        ),
    ],
)
def test_labels_that_are_meant(width: int, y: Tensor, loss: Loss) -> None:
    assert learn(net(width), y, loss, allow=["unsupervised"]).passed


def test_an_input_is_no_label() -> None:
    """What a model is given may fit a target of its own by chance."""

    class Kinds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.net = nn.Embedding(4, 6), net()

        def forward(self, x: Tensor, kind: Tensor) -> Any:
            return self.net(x + self.table(kind))

    torch.manual_seed(0)
    result = run_overfit(
        Kinds(),
        {"x": X, "kind": LABELS},
        lambda m, b: F.cross_entropy(m(b["x"], b["kind"]), b["kind"].clamp(max=2)),
        lr=1e-2,
        objective=0.05,
        max_steps=600,
    )
    assert "target-mismatch" not in [cause.id for cause in result.causes]


def test_an_input_that_is_its_own_target_is_told_where_it_is_turned() -> None:
    torch.manual_seed(0)
    batch = {"x": torch.randn(8, 3)}
    model = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 3))
    result = run_overfit(
        model, batch, lambda m, b: F.mse_loss(m(b["x"]), b["x"].flip(-1)), lr=1e-2, objective=0.01, max_steps=600
    )
    assert "compares with x with its last axis in reverse order" in result.causes[0].observed
