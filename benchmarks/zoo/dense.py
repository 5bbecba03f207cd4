# mypy: disable-error-code="no-any-return"
"""Fully connected models: classification, regression, multi-label, tabular data, autoencoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.case import Setup, cases, fixed, mlp

Batch = dict[str, Any]


def classify(model: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy of the logits of ``x`` against the labels ``y``."""
    return F.cross_entropy(model(batch["x"]), batch["y"])


def regress(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error of the prediction for ``x`` against ``y``."""
    return F.mse_loss(model(batch["x"]), batch["y"])


def labelled(count: int = 16, features: int = 20, classes: int = 5) -> Batch:
    """Standard normal features (count, features) with random labels."""
    source = fixed()
    return {
        "x": torch.randn(count, features, generator=source),
        "y": torch.randint(0, classes, (count,), generator=source),
    }


def targets(count: int = 16, features: int = 20, outputs: int = 3) -> Batch:
    """Standard normal features (count, features) with standard normal targets (count, outputs)."""
    source = fixed()
    return {
        "x": torch.randn(count, features, generator=source),
        "y": torch.randn(count, outputs, generator=source),
    }


def mlp_classification() -> Setup:
    """Three layers, all defaults."""
    return Setup(mlp(20, 128, 128, 5), labelled(), classify)


def mlp_regression() -> Setup:
    """A tuple batch under a criterion module."""
    batch = targets()
    return Setup(mlp(20, 128, 128, 3), (batch["x"], batch["y"]), nn.MSELoss())


def mlp_tuple_cross_entropy() -> Setup:
    """A tuple batch under nn.CrossEntropyLoss()."""
    batch = labelled()
    return Setup(mlp(20, 128, 128, 5, activation=nn.GELU), (batch["x"], batch["y"]), nn.CrossEntropyLoss())


def mlp_functional_criterion() -> Setup:
    """A list batch, as a default collate makes it, under F.cross_entropy."""
    batch = labelled()
    return Setup(mlp(20, 128, 128, 5, activation=nn.Tanh), [batch["x"], batch["y"]], F.cross_entropy)


def mlp_one_sample() -> Setup:
    """A batch of one sample."""
    return Setup(mlp(20, 64, 64, 5), labelled(count=1), classify)


def mlp_regression_one_sample() -> Setup:
    """A batch of one sample with four target values."""
    return Setup(mlp(12, 64, 64, 4), targets(count=1, features=12, outputs=4), regress)


def mlp_batch_norm() -> Setup:
    """Linear layers without bias in front of BatchNorm1d."""
    model = nn.Sequential(
        nn.Linear(20, 96, bias=False), nn.BatchNorm1d(96), nn.ReLU(),
        nn.Linear(96, 96, bias=False), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 5),
    )  # fmt: skip
    return Setup(model, labelled(), classify)


def logistic_regression() -> Setup:
    """One linear layer, one logit, more features than samples."""
    source = fixed()
    batch = {
        "x": torch.randn(12, 40, generator=source),
        "y": torch.randint(0, 2, (12,), generator=source).float(),
    }

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch["x"]).squeeze(1), batch["y"])

    return Setup(nn.Linear(40, 1), batch, loss, optimizer=lambda p: torch.optim.Adam(p, lr=0.02))


def multi_label_bce() -> Setup:
    """Several labels per sample, the rare ones weighted up."""
    source = fixed()
    x = torch.randn(16, 32, generator=source)
    y = (torch.rand(16, 6, generator=source) < 0.3).float()
    criterion = nn.BCEWithLogitsLoss(pos_weight=torch.full((6,), 2.0))
    return Setup(mlp(32, 128, 6), (x, y), criterion, optimizer=lambda p: torch.optim.Adam(p, lr=3e-3))


class Tabular(nn.Module):
    """Numeric columns and two categorical ones; categories that the batch does not hold keep their vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.city = nn.Embedding(50, 8)
        self.weekday = nn.Embedding(7, 4, padding_idx=0)
        self.norm = nn.BatchNorm1d(6)
        self.net = mlp(6 + 8 + 4, 96, 96, 1)

    def forward(self, numeric: Tensor, city: Tensor, weekday: Tensor) -> Tensor:
        columns = [self.norm(numeric), self.city(city), self.weekday(weekday)]
        return self.net(torch.cat(columns, dim=1)).squeeze(1)


def tabular_nested_batch() -> Setup:
    """A nested dict batch with names in it, one of the columns integer."""
    source = fixed()
    batch = {
        "inputs": {
            "numeric": torch.randn(16, 6, generator=source),
            "city": torch.randint(0, 50, (16,), generator=source),
            "weekday": torch.randint(1, 7, (16,), generator=source),
        },
        "target": {"log_price": torch.randn(16, generator=source)},
        "meta": {"row": [f"row-{index}" for index in range(16)], "source": "train.csv", "version": 3},
    }

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        error = model(**batch["inputs"]) - batch["target"]["log_price"]
        return {"objective": error.square().mean(), "mae": error.abs().mean().detach()}

    return Setup(Tabular(), batch, loss)


class WideAndDeep(nn.Module):
    """A sum of bags of words next to a deep part."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(200, 32, mode="mean")
        self.wide = nn.Linear(10, 4)
        self.deep = mlp(32 + 10, 96, 4)

    def forward(self, tokens: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:
        return self.wide(dense) + self.deep(torch.cat([self.words(tokens, offsets), dense], dim=1))


def embedding_bag() -> Setup:
    """Ragged token lists, flat with offsets."""
    source = fixed()
    lengths = torch.randint(3, 12, (16,), generator=source)
    batch = {
        "tokens": torch.randint(0, 200, (int(lengths.sum()),), generator=source),
        "offsets": torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]]),
        "dense": torch.randn(16, 10, generator=source),
        "label": torch.randint(0, 4, (16,), generator=source),
    }

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["tokens"], batch["offsets"], batch["dense"])
        return F.cross_entropy(logits, batch["label"])

    return Setup(WideAndDeep(), batch, loss, optimizer=lambda p: torch.optim.Adam(p, lr=3e-3))


class MatrixFactors(nn.Module):
    """Ratings as inner products of user and item vectors plus offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(40, 16), nn.Embedding(60, 16)
        self.user_offset, self.item_offset = nn.Embedding(40, 1), nn.Embedding(60, 1)
        self.mean = nn.Parameter(torch.zeros(()))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        offsets = self.user_offset(user) + self.item_offset(item)
        return (self.users(user) * self.items(item)).sum(1) / 4 + offsets.squeeze(1) + self.mean


def recommender() -> Setup:
    """Integer inputs only."""
    source = fixed()
    batch = {
        "user": torch.randint(0, 40, (32,), generator=source),
        "item": torch.randint(0, 60, (32,), generator=source),
        "rating": torch.randint(1, 6, (32,), generator=source).float() / 5,
    }

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(batch["user"], batch["item"]), batch["rating"])

    return Setup(MatrixFactors(), batch, loss, optimizer=lambda p: torch.optim.Adam(p, lr=0.01))


def autoencoder() -> Setup:
    """The batch is one tensor, and the target."""
    model = mlp(24, 128, 16, 128, 24)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return F.mse_loss(model(batch), batch)

    return Setup(model, torch.randn(12, 24, generator=fixed()), loss)


def denoising_autoencoder() -> Setup:
    """New noise on the input in every step."""
    model = mlp(24, 192, 32, 192, 24)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return F.mse_loss(model(batch + 0.1 * torch.randn_like(batch)), batch)

    return Setup(model, torch.randn(12, 24, generator=fixed()), loss, optimizer=lambda p: torch.optim.Adam(p, lr=2e-3))


class ResidualMLP(nn.Module):
    """Pre-norm residual blocks whose last layer starts at zero, so that every block starts as the identity."""

    def __init__(self, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(20, width)
        blocks = [nn.Sequential(nn.LayerNorm(width), *mlp(width, 128, width)) for _ in range(depth)]
        for block in blocks:
            for parameter in block[-1].parameters():
                nn.init.zeros_(parameter)
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def zero_initialised_residuals() -> Setup:
    """The inner layers of a block get no gradient in the first step."""
    return Setup(ResidualMLP(), labelled(), classify)


def zero_initialised_head() -> Setup:
    """Only the head gets a gradient in the first step."""
    model = mlp(20, 128, 128, 5)
    for parameter in model[-1].parameters():
        nn.init.zeros_(parameter)
    return Setup(model, labelled(), classify)


CASES = cases(
    "dense",
    mlp_classification,
    mlp_regression,
    mlp_tuple_cross_entropy,
    mlp_functional_criterion,
    mlp_one_sample,
    mlp_regression_one_sample,
    mlp_batch_norm,
    logistic_regression,
    multi_label_bce,
    tabular_nested_batch,
    embedding_bag,
    recommender,
    autoencoder,
    denoising_autoencoder,
    zero_initialised_residuals,
    zero_initialised_head,
)
