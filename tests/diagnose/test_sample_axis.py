"""Which axis is that of the samples, where sizes agree by chance, or a model returns nothing but its own loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit
from tests.support.told import told


def learn(model: Any, batch: Any, loss: Any, **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    given: dict[str, Any] = {"objective": 0.1, "optimizer": lambda p: torch.optim.Adam(p, lr=3e-3), "max_steps": 400}
    return run_overfit(model, batch, loss, **given | settings)


class Encoder(nn.Module):
    """Attention over tokens, with positions by one of two axes."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis, self.embed = axis, nn.Embedding(20, 32)
        self.places = nn.Parameter(torch.randn(64, 32) / 4)
        self.layer = nn.TransformerEncoderLayer(32, 2, 48, 0.0, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, ids: Tensor) -> Tensor:
        places = self.places[: ids.shape[self.axis]]
        x = self.embed(ids) + (places[:, None] if self.axis == 0 else places)
        return self.head(self.layer(x).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("axis", "cause"), [(0, "batch-mixing"), (1, "")])
def test_positions_are_numbered_along_the_sequence(axis: int, cause: str) -> None:
    batch = torch.randint(0, 20, (6, 9)), torch.arange(6) % 3
    result = learn(lambda: Encoder(axis), batch, lambda model, b: F.cross_entropy(model(b[0]), b[1]))
    assert told(result) == cause


class Frames(nn.Module):
    """One clip, frame by frame, each with its number."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.head = nn.Parameter(torch.randn(16, 12)), nn.Linear(12, 2)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(clip.flatten(1).tanh() + self.places[: len(clip)])  # type: ignore[no-any-return]


def test_frames_of_one_clip_may_be_numbered() -> None:
    batch = torch.randn(5, 3, 2, 2), torch.randn(5, 2)
    assert told(learn(Frames, batch, lambda model, b: F.mse_loss(model(b[0]), b[1]))) == ""


class Own(nn.Module):
    """Returns its loss; its tokens see each other, and perhaps those of other samples."""

    def __init__(self, mixes: bool) -> None:
        super().__init__()
        self.mixes, self.embed = mixes, nn.Embedding(20, 32)
        self.layer = nn.TransformerEncoderLayer(32, 2, 48, 0.0, batch_first=True)
        self.head = nn.Linear(32, 20)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        x = self.embed(ids)
        x = x - x.mean(0) if self.mixes else x
        return F.cross_entropy(self.head(self.layer(x, src_mask=mask)).transpose(1, 2), labels)


@pytest.mark.parametrize(("mixes", "cause"), [(True, "batch-mixing"), (False, "")])
def test_a_model_that_returns_its_own_loss_is_asked_before_it(mixes: bool, cause: str) -> None:
    batch = torch.randint(0, 20, (6, 9)), torch.randint(0, 20, (6, 9))
    assert told(learn(lambda: Own(mixes), batch, lambda model, b: model(*b))) == cause


class Contrast(nn.Module):
    """Compares all samples with all in its own loss."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(5, 16), nn.Linear(7, 16)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        table = F.normalize(self.one(a).tanh(), dim=1) @ F.normalize(self.other(b).tanh(), dim=1).T
        return F.cross_entropy(20 * table, torch.arange(len(a)))


def test_a_loss_may_compare_samples() -> None:
    batch = torch.randn(8, 5), torch.randn(8, 7)
    assert told(learn(Contrast, batch, lambda model, b: model(*b))) == ""


class Grid(nn.Module):
    """A layer of a size that is, by chance, the number of samples; features may lose their mean over the batch."""

    def __init__(self, mixes: bool) -> None:
        super().__init__()
        self.mixes, self.body, self.head = mixes, nn.Linear(6, 64), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        grid = self.body(x).reshape(-1, 8, 8)
        grid = (grid @ grid.transpose(1, 2) / 8).tanh()
        return self.head((grid - grid.mean(0) if self.mixes else grid).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("mixes", "cause"), [(True, "batch-mixing"), (False, "")])
def test_a_table_of_features_is_none_of_samples(mixes: bool, cause: str) -> None:
    batch = torch.randn(8, 6), torch.randn(8, 3)
    assert told(learn(lambda: Grid(mixes), batch, lambda model, b: F.mse_loss(model(b[0]), b[1]))) == cause
