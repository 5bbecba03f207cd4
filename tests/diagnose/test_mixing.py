"""Samples that see their neighbours: in a layer that keeps them apart elsewhere, and in what the loss compares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit


def learn(model: Any, batch: Any, loss: Any, **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    given: dict[str, Any] = {"objective": 0.1, "optimizer": lambda p: torch.optim.Adam(p, lr=1e-2)} | settings
    return run_overfit(model, batch, loss, **given)


def named(result: OverfitResult) -> list[tuple[str, str]]:
    return [(cause.id, cause.where) for cause in result.causes]


class Scale(nn.Module):
    """A norm of somebody's own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.gain = dim, nn.Parameter(torch.ones(16))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x / (x.square().mean(self.dim, keepdim=True) + 0.1).sqrt()


class Always(nn.BatchNorm2d):
    """A batch norm that never uses what it has kept."""

    def train(self, mode: bool = True) -> Always:
        return self


class Rows(nn.Module):
    """Images, with a block for each of the given norms; a memory of all samples where it has one."""

    def __init__(self, *norms: nn.Module, first: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 2, 2)
        self.first = first or nn.Identity()
        self.norms, self.layers = nn.ModuleList(norms), nn.ModuleList(nn.Linear(16, 16) for _ in norms)
        self.head = nn.Linear(16 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x)).flatten(2).transpose(1, 2)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x)).tanh()
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class Wrong(nn.LayerNorm):
    """Somebody takes the mean over the samples first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class Between(nn.Module):
    """Attention of every sample to all others, which a design may be made of."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        q = self.mix(x).mean(1)
        return torch.einsum("ij,jpc->ipc", (q @ q.T).softmax(-1), x)


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (lambda: Rows(Scale(-1), Scale(0), Scale(-1)), "module norms.1"),
        (lambda: Rows(nn.LayerNorm(16), Wrong(16)), "module norms.1"),
        (lambda: Rows(nn.LayerNorm(16), first=Always(16)), "module first"),
        (lambda: Rows(Scale(-1), Scale(-1)), None),
        (lambda: Rows(nn.LayerNorm(16), first=nn.BatchNorm2d(16, momentum=0.5)), None),
        (lambda: Rows(Between(), Between(), nn.LayerNorm(16)), None),
    ],
)
def test_a_layer_that_mixes_what_its_kind_keeps_apart(model: Any, where: str | None) -> None:
    """The odd one of three, one of torch's, a batch norm in evaluation mode; not a design whose layers all do."""
    data = torch.randn(6, 1, 4, 4), torch.arange(6) % 3
    result = learn(model, data, nn.CrossEntropyLoss())
    assert named(result) == ([("batch-mixing", where)] if where else [])
    assert result.passed == (where is None)


def similar(a: Tensor, b: Tensor) -> Tensor:
    return F.cross_entropy(4 * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T, torch.arange(len(a)))


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda out, to: F.mse_loss(out.reshape(3, 6).T, to), True),
        (lambda out, to: F.smooth_l1_loss(out.T.reshape(6, 3), to), True),
        (lambda out, to: (out - to).square().mean(), False),
        (lambda out, to: F.l1_loss(out.T, to.T), False),
        (lambda out, to: (out - to).square().sum() / to.abs().sum(), False),
        (similar, False),
        (lambda out, to: (out - to).norm(), False),
    ],
)
def test_single_elements_that_are_held_against_other_samples(
    loss: Callable[[Tensor, Tensor], Tensor], found: bool
) -> None:
    """A view for a transpose; not what turns both, nor a loss that weighs or compares all samples with all."""

    def of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return loss(model(batch[0]), batch[1])

    data = torch.randn(6, 4), torch.randn(6, 3)
    result = learn(lambda: nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3)), data, of, objective=0.4)
    assert named(result)[:1] == ([("target-mismatch", "output output")] if found else [])
    assert result.passed != found


class Standardised(nn.Module):
    """Numbers that are standardised over the batch."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(features, 128), nn.GELU(), nn.Linear(128, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - x.mean(0)) / x.std(0))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("samples", "features"), [(6, 6), (6, 8)])
def test_as_many_features_as_samples_are_no_graph(samples: int, features: int) -> None:
    batch = torch.randn(samples, features), torch.arange(samples) % 3
    result = run_overfit(lambda: Standardised(features), batch, nn.CrossEntropyLoss())
    assert [cause.id for cause in result.causes] == ["batch-mixing"]


class Nodes(nn.Module):
    """A graph with as many nodes as features, by the table of its edges."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 64), nn.Linear(64, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.second(edges @ self.first(x).relu())  # type: ignore[no-any-return]


def test_a_graph_of_as_many_nodes_as_features_mixes_on_purpose() -> None:
    batch = {"x": torch.randn(6, 6), "edges": torch.eye(6) + torch.eye(6).roll(1, 0), "y": torch.arange(6) % 3}
    result = run_overfit(Nodes, batch, lambda m, b: F.cross_entropy(m(b["x"], b["edges"]), b["y"]))
    assert result.passed, result.summary()


class Integrated(nn.Module):
    """Takes steps of one size for all samples, which the steepest of them chooses; or sums over all samples."""

    def __init__(self, sums: bool) -> None:
        super().__init__()
        self.sums, self.given, self.slope, self.head = sums, nn.Linear(4, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        z, left = self.given(x), 1.0
        while left > 0:
            slope = self.slope(z).tanh()
            size = min(left, 0.1 / (1 + float(slope.detach().abs().max())))
            z, left = z + size * slope, left - size
        return self.head(z + (0.05 * z.sum(0) if self.sums else 0))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("sums", "found"), [(False, []), (True, ["batch-mixing"])])
def test_a_step_size_that_all_samples_choose(sums: bool, found: list[str]) -> None:
    batch = torch.randn(6, 4), torch.arange(6) % 3
    result = learn(lambda: Integrated(sums), batch, lambda m, b: F.cross_entropy(m(b[0]), b[1]), max_steps=400)
    assert [cause.id for cause in result.causes] == found
