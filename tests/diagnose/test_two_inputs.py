"""Models that are given images and texts, which look like a mistake along one axis and are none."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit


class Compared(nn.Module):
    """Images and texts by two towers; the table of all with all, and one row for each of them beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Sequential(nn.Flatten(), nn.Linear(48, 32)), nn.Embedding(20, 32)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one, other = F.normalize(self.image(image), dim=-1), F.normalize(self.text(text).mean(1), dim=-1)
        return 10 * one @ other.T, one, other


def test_a_table_of_all_samples_with_all_turns_along_both_axes() -> None:
    batch = {"image": torch.randn(6, 3, 4, 4), "text": torch.randint(20, (6, 5))}

    def loss(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
        table = model(given["image"], given["text"])[0]
        return F.binary_cross_entropy_with_logits(table, torch.eye(6))

    result = run_overfit(Compared, batch, loss, optimizer=lambda p: torch.optim.Adam(p, lr=0.01), objective=0.2)
    assert result.passed, result.summary()


class Described(nn.Module):
    """An image with a table of its places, which reads tokens of a text that have none."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.pos_embed = nn.Conv2d(3, 32, 2, 2), nn.Parameter(torch.randn(1, 16, 32))
        self.attend, self.head = nn.MultiheadAttention(32, 2, batch_first=True, kdim=8, vdim=8), nn.Linear(32, 12)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        places = self.cut(image).flatten(2).transpose(1, 2) + self.pos_embed
        return self.head(places + self.attend(places, text, text)[0])  # type: ignore[no-any-return]


def test_tokens_of_a_text_beside_an_image_need_no_table_of_places() -> None:
    batch = {"image": torch.randn(2, 3, 8, 8), "text": torch.randn(2, 5, 8), "noise": torch.randn(2, 16, 12)}

    def loss(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
        return F.mse_loss(model(given["image"], given["text"]), given["noise"])

    result = run_overfit(Described, batch, loss, optimizer=lambda p: torch.optim.Adam(p, lr=0.01), objective=0.02)
    assert result.passed, result.summary()
