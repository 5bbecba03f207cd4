"""A model that is given what it is compared with: an autoencoder's input, or the answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pytest_overfit import run_overfit

SEED = torch.Generator().manual_seed(0)
PATHS = torch.randn(8, 2, generator=SEED) @ torch.randn(2, 16, generator=SEED)
LABELS, TIMES, OTHER = torch.eye(8), torch.linspace(0, 1, 16), torch.randn(8, 16, generator=SEED)


class Autoencoder(nn.Module):
    """Through a code of four numbers, beside a grid of times or a condition of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 4))
        self.decoder = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 16))
        self.condition = nn.Linear(8, 16)

    def forward(self, path: Tensor, beside: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(self.encoder(path))
        shift: Tensor = self.condition(beside if beside.dim() == 2 else beside[:8])
        return decoded + shift


class Answered(nn.Module):
    """Is handed the answer beside the question."""

    def __init__(self, layers: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = layers()

    def forward(self, question: Tensor, answer: Tensor) -> Tensor:
        output: Tensor = self.layers(torch.cat([question, answer], dim=1))
        return output


def mse(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


@pytest.mark.parametrize("beside", [TIMES, LABELS], ids=["grid", "condition"])
def test_what_reconstructs_its_input_reads_no_answer(beside: Tensor) -> None:
    result = run_overfit(
        Autoencoder,
        {"path": PATHS, "beside": beside},
        lambda model, batch: mse(model(batch["path"], batch["beside"]), batch["path"]),
        optimizer=lambda p: torch.optim.Adam(p, 3e-3),
    )
    assert result.passed, result.failure_text()


@pytest.mark.parametrize(
    "layers",
    [
        lambda: nn.Linear(32, 16),
        lambda: nn.Sequential(nn.Linear(32, 128), nn.Tanh(), nn.Linear(128, 16)),
        lambda: nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 16)),
    ],
    ids=["linear", "tanh", "relu"],
)
def test_the_answer_beside_the_question_is_a_leak(layers: Callable[[], nn.Module]) -> None:
    data = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    question = torch.randn(64, 16, generator=torch.Generator().manual_seed(2))
    result = run_overfit(
        lambda: Answered(layers),
        {"question": question, "answer": data},
        lambda model, batch: mse(model(batch["question"], batch["answer"]), batch["answer"]),
        optimizer=lambda p: torch.optim.Adam(p, 3e-3),
        max_steps=1500,
    )
    assert [cause.id for cause in result.causes][:1] == ["leak"]
    assert result.finding("defects").missed
