"""What is said of floors, scales and gradients that vanish or explode has to be so: near misses of each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

DATA = torch.arange(12.0).reshape(4, 3).sin(), torch.arange(4) % 3


def causes(result: OverfitResult) -> list[str]:
    return [cause.id for cause in result.causes]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("own_step", [True, False])
def test_a_model_that_computes_its_own_loss_has_no_floor(alone: bool, own_step: bool) -> None:
    """The loss alone, or beside its logits: freed as an output it would fall without end."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 3)

        def forward(self, x: Tensor, labels: Tensor) -> Any:
            logits = self.net(x)
            loss = F.cross_entropy(logits, labels)
            return loss if alone else {"loss": loss, "logits": logits}

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        output = model(**batch)
        return output if alone else output["loss"]  # type: ignore[no-any-return]

    def step(model: nn.Module, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        found = loss(model, batch)
        found.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return found

    asked: dict[str, Any] = {"step": step} if own_step else {"loss": loss}
    result = run_overfit(Model, {"x": DATA[0], "labels": DATA[1]}, max_steps=10, **asked)
    assert result.evidence is not None
    assert result.evidence.probed.floor is None
    assert not result.not_asked


def test_coordinates_in_pixels_do_not_explode() -> None:
    """Boxes of a picture of 640 pixels, a run that needs more steps; weights that amplify are another matter."""

    class Boxes(nn.Module):
        def __init__(self, weights: float) -> None:
            super().__init__()
            self.trunk, self.head = nn.Linear(3, 64), nn.Linear(64, 4)
            self.trunk.weight.data.mul_(weights)

        def forward(self, x: Tensor) -> Tensor:
            return 640 * self.head(self.trunk(x).relu()).sigmoid()  # type: ignore[no-any-return]

    targets = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) * 640

    def ask(weights: float) -> list[str]:
        torch.manual_seed(0)
        return causes(run_overfit(lambda: Boxes(weights), (DATA[0], targets), F.l1_loss, max_steps=30))

    assert "gradient-explosion" not in ask(1.0)
    assert "gradient-explosion" in ask(1e3)


def test_one_tensor_behind_a_small_scale_is_no_gradient_that_vanishes() -> None:
    """A token that is read through a scale of 1e-6 alone, in a run that needs more steps; sixteen sigmoids do."""

    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 16))
            self.first, self.second, self.head = nn.Linear(3, 16), nn.Linear(16, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.first(x).tanh() + 1e-6 * self.token).tanh())  # type: ignore[no-any-return]

    torch.manual_seed(0)
    assert "zero-gradient" not in causes(run_overfit(Token, DATA, nn.CrossEntropyLoss(), max_steps=5))
    layers = [layer for _ in range(16) for layer in (nn.Linear(3, 3), nn.Sigmoid())]
    deep = nn.Sequential(*layers, nn.Linear(3, 3))
    result = run_overfit(deep, DATA, nn.CrossEntropyLoss(), max_steps=60)
    assert "zero-gradient" in causes(result)


def test_a_report_has_one_direction_for_the_learning_rate() -> None:
    """A rate that is far too small: nothing beside it says that it should be lower."""
    torch.manual_seed(0)
    result = run_overfit(
        nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 3)), DATA, nn.CrossEntropyLoss(), max_steps=200,
        monotonic={"strict": True}, optimizer=lambda p: torch.optim.Adam(p, lr=1e-5),
    )  # fmt: skip
    assert causes(result) == ["lr-low"]
    assert "lower" not in result.failure_text()


def test_a_batch_with_a_sparse_tensor_is_diagnosed() -> None:
    """An adjacency beside dense features, in a run that fails."""
    batch = DATA[0], torch.eye(4).to_sparse(), DATA[1]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(torch.sparse.mm(batch[1], model(batch[0])), batch[2])

    result = run_overfit(lambda: nn.Linear(3, 3), batch, loss, max_steps=5)
    assert not result.passed
    assert not result.not_asked
