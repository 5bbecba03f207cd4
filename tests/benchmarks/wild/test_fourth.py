"""The fourth set of held-out operators: each does what it says to a program of torch alone, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.check import train
from benchmarks.wild.operators import BY_ID
from benchmarks.wild.operators.operator import Setup, broken, healthy
from benchmarks.wild.operators.trace import trace_of
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS, Words, fixed
from tests.benchmarks.wild.test_held_back import POINTS, TAGS
from tests.benchmarks.wild.test_third import TABLE


class Deep(nn.Module):
    """A list of layers of one shape, behind two branches that are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 16), nn.Linear(6, 16)
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], -1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        out: Tensor = self.head(x)
        return out


class Heads(nn.Module):
    """A tagger with an attention of two heads that hides padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 16), nn.Linear(16, 3)

    def forward(self, ids: Tensor, seen: Tensor) -> Tensor:
        x = self.embed(ids)
        heads = x.unflatten(-1, (2, 8)).transpose(1, 2)
        mask = seen[:, None, None].bool().expand(-1, 1, ids.shape[1], -1)
        mixed = F.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask).transpose(1, 2).flatten(2)
        out: Tensor = self.head(x + mixed)
        return out


class Written(Words):
    """The language model, with its attention written out."""

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embed(ids) + self.pos(torch.arange(ids.shape[1]))
        q, k, v = (each.unflatten(-1, (2, 16)).transpose(1, 2) for each in self.qkv(self.norm(x)).chunk(3, -1))
        future = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
        weights = (q @ k.transpose(-1, -2) / 4).masked_fill(future, float("-inf")).softmax(-1)
        out: Tensor = self.head(x + self.out((weights @ v).transpose(1, 2).flatten(2)))
        return out


DEEP = replace(POINTS, name="plain/Deep", model=Deep)
HEADS = replace(TAGS, name="plain/Heads", model=Heads)
CASES = {
    "part_left_frozen_after_turn": (TAGS, "silent"),
    "weight_normalised_after_optimizer": (SERIES, "silent"),
    "count_of_steps_stays": (TAGS, "silent"),
    "gradients_of_validation_kept": (POINTS, "silent"),
    "statistics_of_frozen_part_move": (TABLE, "silent"),
    "prediction_in_other_unit_in_evaluation": (POINTS, "silent"),
    "features_in_float8_without_scale": (TAGS, "silent"),
    "neighbour_called_twice": (DEEP, "silent"),
    "first_concatenated_twice": (DEEP, "silent"),
    "straight_through_part": (DEEP, "silent"),
    "padding_index_of_real_token": (TAGS, "silent"),
    "softmax_over_queries": (TOKENS, "silent"),
    "mask_repeated_for_heads": (HEADS, "silent"),
    "copies_viewed_in_wrong_order": (POINTS, "silent"),
    "first_channel_compared": (POINTS, "silent"),
    "target_among_features": (POINTS, "silent"),
}


def setup_of(name: str, program: Program) -> Setup:
    """A program with a mistake."""
    made = broken(program, BY_ID[name], trace_of(program, 0), 0)
    assert made is not None
    return made[0]


def gradients(setup: Setup) -> dict[str, bool]:
    """Which parameters have a gradient that is not zero."""
    setup.loss(setup.model, setup.batch).backward()  # type: ignore[no-untyped-call]
    found = setup.model.named_parameters()
    return {name: each.grad is not None and bool(each.grad.any()) for name, each in found}


def test_every_one_is_a_case() -> None:
    """None of the set is without a program here."""
    assert set(CASES) == written_in("fourth")


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("neighbour_called_twice", POINTS),  # no two layers of one shape
        ("first_concatenated_twice", TAGS),
        ("straight_through_part", SERIES),  # no part that returns as many channels as it reads
        ("padding_index_of_real_token", IMAGES),
        ("softmax_over_queries", TAGS),  # no future that is hidden
        ("mask_repeated_for_heads", TAGS),  # one head
        ("first_channel_compared", SERIES),  # another term tells the rest
        ("target_among_features", IMAGES),
        ("prediction_in_other_unit_in_evaluation", TAGS),
        ("statistics_of_frozen_part_move", replace(POINTS, traits=frozenset({"batchnorm"}))),
        ("count_of_steps_stays", replace(POINTS, optimizer=torch.optim.SGD)),
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    assert broken(program, BY_ID[name], trace_of(program, 0), 0) is None


def test_evaluation_alone_is_mistaken() -> None:
    """What is mistaken in evaluation alone trains as the healthy program does."""
    setups = (healthy(POINTS, 0), setup_of("prediction_in_other_unit_in_evaluation", POINTS))
    runs = [train(replace(POINTS, steps=3), setup, 0) for setup in setups]
    assert runs[0].losses == pytest.approx(runs[1].losses)
    assert runs[1].evaluated[0] > 10 * runs[0].evaluated[0]


@pytest.mark.parametrize("name", ["neighbour_called_twice", "first_concatenated_twice", "straight_through_part"])
def test_part_has_no_gradient(name: str) -> None:
    """One part learns nothing, all others do."""
    assert all(gradients(healthy(DEEP, 0)).values())
    assert list(gradients(setup_of(name, DEEP)).values()).count(False) == 2


def test_token_has_no_gradient() -> None:
    """The row of a token that counts is zero, and stays so."""
    setup = setup_of("padding_index_of_real_token", TAGS)
    gradients(setup)
    weight: Any = setup.model.get_submodule("embed").weight
    row = setup.model.get_submodule("embed").padding_idx
    assert row in setup.batch["ids"]
    assert not weight[row].any()
    assert not weight.grad[row].any()


@pytest.mark.parametrize("model", [Words, Written])
def test_earlier_tokens_answer_to_later_ones(model: type[nn.Module]) -> None:
    """With a softmax over the queries, and not without; of an attention that is called, or written out."""
    program = replace(TOKENS, model=model)
    for setup, leaks in ((healthy(program, 0), False), (setup_of("softmax_over_queries", program), True)):
        other = {**setup.batch, "ids": setup.batch["ids"].clone()}
        other["ids"][:, -3] = (other["ids"][:, -3] + 1) % 20
        seen = [setup.model.eval()(each["ids"], mask=each["mask"])[:, 0] for each in (setup.batch, other)]
        assert torch.allclose(seen[0], seen[1], atol=1e-6) != leaks


@pytest.mark.parametrize(
    ("name", "program"), [("mask_repeated_for_heads", HEADS), ("copies_viewed_in_wrong_order", POINTS)]
)
def test_batch_of_one_is_what_it_was(name: str, program: Program) -> None:
    """Whoever tries it with one sample sees no mistake."""
    runs = [setup.model.eval() for setup in (healthy(program, 0), setup_of(name, program))]
    batch = program.batch()
    read = (batch["ids"], batch["seen"]) if isinstance(batch, dict) else batch[:1]
    whole, first = ([model(*(each[:count] for each in read)) for model in runs] for count in (None, 1))
    assert torch.allclose(first[0], first[1], atol=1e-6)
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)


def test_frozen_part_is_declared() -> None:
    """The user says what is frozen; its statistics move all the same."""
    setup = setup_of("statistics_of_frozen_part_move", TABLE)
    still = [name for name, each in setup.model.named_parameters() if not each.requires_grad]
    assert {f"{name.rpartition('.')[0]}.*" for name in still} == set(setup.given["frozen"])
    before = {name: each.clone() for name, each in setup.model.named_buffers()}
    train(replace(TABLE, steps=2), setup, 0)
    assert any(not torch.equal(before[name], each) for name, each in setup.model.named_buffers())


def test_part_learns_in_the_first_step_alone() -> None:
    """It has moved once, and is where it was afterwards."""
    setup = setup_of("part_left_frozen_after_turn", DEEP)
    run = train(replace(DEEP, steps=3), setup, 0)
    frozen = [name for name, each in setup.model.named_parameters() if not each.requires_grad]
    assert frozen
    assert all(not torch.equal(run.start[name], run.early[name]) for name in frozen)


def test_target_is_read_off() -> None:
    """A column of the input is the first one of the target."""
    features, told = setup_of("target_among_features", POINTS).batch
    assert torch.equal(features[:, -1], told[:, 0])
    assert fixed(5, 2).equal(told)
