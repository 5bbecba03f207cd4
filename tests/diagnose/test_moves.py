"""What moves and what does not: rows of tables, ties, averages, freezing, statistics; each beside its sound kin."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.diagnose.small_moves import causes, learn


class Users(nn.Module):
    """A table of users and one of things; the score is read from both."""

    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.users, self.things = nn.Embedding(6, 16, padding_idx=padding), nn.Embedding(4, 16)
        self.head = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, pairs: Tensor) -> Tensor:
        return self.head(torch.cat([self.users(pairs[:, 0]), self.things(pairs[:, 1])], 1))[:, 0]  # type: ignore[no-any-return]


def pairs() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    return torch.stack([torch.arange(12) % 6, torch.arange(12) // 3], 1), torch.randn(12, generator=drawn)


@pytest.mark.parametrize(("padding", "found"), [(5, ["zero-gradient"]), (None, [])])
def test_a_row_that_is_no_padding_is_held(padding: int | None, found: list[str]) -> None:
    """Also in a run that learns it from the rest."""
    result = learn(lambda: Users(padding), pairs(), F.mse_loss)
    assert causes(result)[:1] == found
    if found:
        assert result.causes[0].where == "users.weight[5]"
        assert "row 5 of users.weight 2 times" in result.causes[0].observed
        assert "padding_idx=5 holds it" in result.causes[0].observed


def test_a_mask_on_the_gradient_of_a_row_holds_it_too() -> None:
    def build() -> nn.Module:
        model = Users(None)
        keep = torch.ones(6, 1)
        keep[2] = 0
        model.users.weight.register_hook(lambda gradient: gradient * keep)  # type: ignore[no-untyped-call]
        return model

    result = learn(build, pairs(), F.mse_loss)
    assert result.causes[0].where == "users.weight[2]"
    assert "hook" in result.causes[0].advice


class Text(nn.Module):
    """Words of sequences that end in padding, averaged with the padding in it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 32, padding_idx=0), nn.Linear(32, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.embed(words).mean(1))  # type: ignore[no-any-return]


def test_padding_at_the_end_of_sequences_is_padding() -> None:
    words = torch.tensor([[3, 4, 5, 0], [6, 7, 0, 0], [8, 9, 3, 4]])
    assert learn(Text, (words, torch.arange(3))).passed


class Words(nn.Module):
    """A table and an output layer of its shape, under a config of its own."""

    def __init__(self, config: SimpleNamespace, tied: bool) -> None:
        super().__init__()
        self.config = config
        self.embed, self.head = nn.Embedding(12, 32), nn.Linear(32, 12, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids).tanh())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("switch", "tied", "found"), [(True, False, ["tie-lost"]), (True, True, []), (False, False, [])]
)
def test_a_tie_that_a_config_says(switch: bool, tied: bool, found: list[str]) -> None:
    ids = torch.arange(12)
    model = lambda: Words(SimpleNamespace(tie_embeddings=switch), tied)  # noqa: E731
    result = learn(model, (ids, ids.roll(1)), max_steps=800)
    assert causes(result) == found
    if found:
        assert result.causes[0].where == "head.weight, embed.weight"


@pytest.mark.parametrize(
    ("config", "found"), [({"tie_embeddings": True}, ["tie-lost"]), ({}, [])], ids=["said to be one", "nobody says"]
)
def test_a_copy_in_place_of_a_tie(config: dict[str, Any], found: list[str]) -> None:
    """A head that nobody says is tied may begin as its table does."""
    ids = torch.arange(12)
    model = Words(SimpleNamespace(**config), tied=True)
    model.head.weight = nn.Parameter(model.embed.weight.detach().clone())
    assert causes(learn(model, (ids, ids.roll(1)), max_steps=800)) == found


def test_clones_of_a_layer_go_apart_on_purpose() -> None:
    first = nn.Linear(8, 8)
    model = nn.Sequential(first, nn.Tanh(), copy.deepcopy(first), nn.Tanh(), nn.Linear(8, 3))
    batch = (torch.randn(6, 8), torch.arange(6) % 3)
    assert causes(learn(model, batch, max_steps=800)) == []


def test_asking_for_a_tie_leaves_the_model_as_it_is() -> None:
    class Tying(Words):
        def tie_weights(self) -> None:
            self.head.weight = self.embed.weight

    ids = torch.arange(12)
    model = Tying(SimpleNamespace(), False)
    before = [model.head.weight, model.embed.weight]
    assert causes(learn(model, (ids, ids.roll(1)), max_steps=800)) == ["tie-lost"]
    assert model.head.weight is before[0]
    assert model.embed.weight is before[1]
