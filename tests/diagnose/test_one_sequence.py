"""Healthy programs whose axis 0 is no axis of samples, or whose batch says more than what is to be learnt."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit


def learn(model: Any, batch: Any, loss: Any = None, **settings: Any) -> OverfitResult:
    torch.manual_seed(0)
    given: dict[str, Any] = {"objective": 0.1, "optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 400}
    return run_overfit(model, batch, loss, **given | settings)


def named(result: OverfitResult) -> list[str]:
    return [f"{cause.id}: {cause.observed}" for cause in result.causes if cause.certain]


class Numbered(nn.Module):
    """Frames of one clip, each with its number; or the first frame marked, and no other."""

    def __init__(self, *, alike: bool = False) -> None:
        super().__init__()
        self.alike, self.stem, self.place = alike, nn.Conv2d(1, 48, 4, 4), nn.Linear(1, 48)
        self.head = nn.Linear(48, 3)

    def forward(self, frames: Tensor) -> Tensor:
        number = torch.linspace(0, 1, len(frames))[:, None]
        place = self.place((number > 0).float() if self.alike else number)
        return self.head((self.stem(frames).mean((2, 3)) + place).tanh())  # type: ignore[no-any-return]


class Attending(nn.Module):
    """A clip in front of which the model puts an axis of one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 32, 4, 4), nn.Linear(32, 3)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.block(self.stem(frames).mean((2, 3))[None])[0])  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """The joints of a body over time, without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = nn.LSTM(12, 32), nn.Linear(32, 3)

    def forward(self, joints: Tensor) -> Tensor:
        return self.head(self.net(joints.flatten(1))[0])  # type: ignore[no-any-return]


class Looping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.onward, self.back, self.head = nn.GRUCell(5, 24), nn.GRUCell(5, 24), nn.Linear(48, 3)

    def read(self, cell: nn.GRUCell, rows: list[Tensor]) -> list[Tensor]:
        state, states = rows[0].new_zeros(24), []
        for row in rows:
            states.append(state := cell(row, state))
        return states

    def forward(self, x: Tensor) -> Tensor:
        rows = list(x)
        states = [self.read(self.onward, rows), self.read(self.back, rows[::-1])[::-1]]
        return self.head(torch.cat([torch.stack(each) for each in states], 1))  # type: ignore[no-any-return]


class Nearest(nn.Module):
    """Points of one cloud, each with its nearest."""

    def __init__(self) -> None:
        super().__init__()
        self.edge, self.head = nn.Linear(10, 64), nn.Linear(64, 3)

    def forward(self, points: Tensor) -> Tensor:
        near = points[torch.cdist(points, points).topk(3, largest=False).indices]
        return self.head(self.edge(torch.cat([points[:, None].expand_as(near), near], -1)).relu().amax(1))  # type: ignore[no-any-return]


class Bodies(nn.Module):
    """Forces between all of one system."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.head = nn.Linear(5, 64), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        apart = x[:, None] - x
        return self.head(self.near(apart).tanh().sum(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Bodies, (6, 5)),
        (Numbered, (6, 1, 8, 8)),
        (Attending, (6, 1, 8, 8)),
        (Recurrent, (6, 4, 3)),
        (Looping, (6, 5)),
        (Nearest, (9, 5)),
    ],
)
def test_one_sequence_without_a_batch(model: Any, shape: tuple[int, ...]) -> None:
    result = learn(model, (torch.randn(shape), torch.arange(shape[0]) % 3), nn.CrossEntropyLoss())
    assert named(result) == []
    assert result.passed, [finding.observed for finding in result.findings if not finding.passed]


def test_a_clip_of_which_some_frames_are_alike_is_told_by_its_place() -> None:
    """The neighbour of the numbered one: what is the same at most places is no number."""
    result = learn(Numbered(alike=True), (torch.randn(6, 1, 8, 8), torch.arange(6) % 3), nn.CrossEntropyLoss())
    assert [cause.id for cause in result.causes] == ["batch-mixing"]


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.second(torch.sparse.mm(edges, self.first(x)).relu())  # type: ignore[no-any-return]


def test_rows_that_a_sparse_matrix_brings_together() -> None:
    at = torch.arange(9)
    pairs = torch.cat([torch.stack([at, at]), torch.stack([at, (at + 1) % 9])], 1)
    edges = torch.sparse_coo_tensor(pairs, torch.full((18,), 0.5), (9, 9), check_invariants=True).coalesce()
    batch = {"x": torch.randn(9, 6), "edges": edges, "y": at % 3}
    result = learn(Graph, batch, lambda model, b: F.cross_entropy(model(b["x"], b["edges"]), b["y"]))
    assert named(result) == []


class Documents(nn.Module):
    def __init__(self, *, apart: bool) -> None:
        super().__init__()
        self.apart, self.tokens, self.places = apart, nn.Embedding(20, 32), nn.Embedding(12, 32)
        self.mix, self.head = nn.Linear(32, 96), nn.Linear(32, 20)

    def forward(self, tokens: Tensor, position_ids: Tensor, segments: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(position_ids)
        mask = torch.ones(12, 12, dtype=torch.bool).tril()
        if self.apart:
            mask = mask & (segments[:, :, None] == segments[:, None])
        query, key, value = self.mix(x).chunk(3, -1)
        return self.head(x + F.scaled_dot_product_attention(query, key, value, attn_mask=mask))  # type: ignore[no-any-return]


@pytest.mark.parametrize("apart", [True, False])
def test_the_numbers_of_documents_are_no_content_of_theirs(apart: bool) -> None:
    """Where they are exchanged, other places are of one document."""

    def loss(model: nn.Module, b: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(model(b["tokens"], b["position_ids"], b["segments"]).flatten(0, 1), b["y"].flatten())

    segments = torch.tensor([[0] * 5 + [1] * 7, [0] * 8 + [1] * 4])
    places = torch.tensor([[*range(5), *range(7)], [*range(8), *range(4)]])
    tokens = torch.randint(0, 20, (2, 12))
    batch = {"tokens": tokens, "position_ids": places, "segments": segments, "y": torch.randint(0, 20, (2, 12))}
    result = learn(Documents(apart=apart), batch, loss)
    assert ("batch-mixing" in [cause.id for cause in result.causes if cause.certain]) != apart


class Domains(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.kind, self.domain = nn.Linear(8, 64), nn.Linear(64, 3), nn.Linear(64, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x).tanh()
        return self.kind(hidden), self.domain(hidden)


def test_labels_that_choose_what_another_output_is_taught() -> None:
    """Of the domain whose kinds are known, the kinds alone are learnt."""

    def loss(model: nn.Module, b: dict[str, Tensor]) -> Tensor:
        kind, domain = model(b["x"])
        known = b["domain"] == 0
        return F.cross_entropy(kind[known], b["y"][known]) + F.cross_entropy(domain, b["domain"])

    batch = {"x": torch.randn(12, 8), "y": torch.arange(12) % 3, "domain": (torch.arange(12) >= 6).long()}
    result = learn(Domains, batch, loss)
    assert named(result) == []
    assert result.passed


class Averaged(nn.Module):
    """What evaluates is a copy of what learns: it follows, or it does not."""

    def __init__(self, *, follows: bool) -> None:
        super().__init__()
        self.follows, self.net = follows, nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 3))
        self.slow = copy.deepcopy(self.net).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if self.training else self.slow(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("follows", [True, False])
def test_an_average_that_evaluation_reads(follows: bool) -> None:
    def step(model: Averaged, batch: Any, optimizer: Any) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(model.slow.parameters(), model.net.parameters(), strict=True):
                slow.lerp_(fast, 0.2 * model.follows)
        return loss

    result = learn(lambda: Averaged(follows=follows), (torch.randn(9, 8), torch.arange(9) % 3), step=step)
    assert ("mode-gap" in [cause.id for cause in result.causes if cause.certain]) != follows
