"""Attentions that are written out, and what their softmax runs over; weighted sums that are no attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import run_overfit

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
HEADS, WIDTH = 2, 16


class Reader(nn.Module):
    """Attention over a sequence; ``mix`` makes of queries, keys and values (B, heads, T, D) what is read."""

    def __init__(self, mix: Mix) -> None:
        super().__init__()
        self.mix, self.embed, self.norm = mix, nn.Linear(4, WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        parts = self.qkv(self.norm(x)).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in parts)
        x = x + self.out(self.mix(q, k, v).transpose(1, 2).flatten(2))
        return self.head(x.mean(1))  # type: ignore[no-any-return]


def scores(q: Tensor, k: Tensor) -> Tensor:
    return 2 * q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])


def over_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.dropout(scores(q, k).softmax(-1), 0.0) @ v


def over_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.dropout(scores(q, k).softmax(-2), 0.0) @ v


def over_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.softmax(scores(q, k) + torch.zeros(1, 1, 1, k.shape[2]), dim=1) @ v


def by_einsum(axis: int) -> Mix:
    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (2 * torch.einsum("b h i d, b h j d -> b h i j", q, k)).softmax(axis)
        return torch.einsum("b h i j, b h j d -> b h i d", weights, v)

    return mix


def renormalised(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As slots compete for places, and average over those that they have won."""
    weights = scores(q, k).softmax(-2)
    return (weights / weights.sum(-1, keepdim=True)) @ v


def features_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """An efficient attention: keys over places, queries over features, and every sum over what was normalised."""
    return q.softmax(-1) @ (k.softmax(-2).transpose(-1, -2) @ v)


def pooled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Places are assigned to clusters, and summed over places: the sizes of clusters are meant to count."""
    assigned = (q + k).softmax(-1)
    return assigned @ (assigned.transpose(-1, -2) @ v)


class HeadsMixed(nn.Module):
    """Weights are mixed over heads by numbers of their own, as of talking heads, before they sum the values."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.tensor([[0.9, 0.2], [-0.3, 0.8]]))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.einsum("b h i j, h g -> b g i j", scores(q, k).softmax(-1), self.mixing)
        return weights @ v


def learn(mix: Mix) -> list[tuple[str, str]]:
    settings: dict[str, Any] = {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 500, "objective": 0.1}
    batch = torch.randn(6, 5, 4), torch.arange(6) % 3
    result = run_overfit(lambda: Reader(mix), batch, nn.CrossEntropyLoss(), **settings)
    return [(cause.id, cause.where.rpartition(":")[0]) for cause in result.causes if cause.certain]


@pytest.mark.parametrize("mix", [over_queries, over_heads, by_einsum(-2)], ids=["queries", "heads", "einsum"])
def test_weights_that_add_up_along_another_axis(mix: Mix) -> None:
    assert ("output-scale", "module Reader, test_weighted_sums.py") in learn(mix)


@pytest.mark.parametrize("mix", [over_keys, by_einsum(-1), renormalised, features_first, pooled, HeadsMixed()])
def test_sums_that_are_meant(mix: Mix) -> None:
    assert learn(mix) == []
