"""The operators that were written in place of those that moved over: what each does, and where it has no place."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.check import EARLY, train
from benchmarks.wild.operators import BY_ID
from benchmarks.wild.operators.masks import exchange_hidden
from benchmarks.wild.operators.operator import Setup, broken, healthy
from benchmarks.wild.operators.rewrite import stepping, train_step
from benchmarks.wild.operators.trace import Hiding, trace_of
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS, fixed


def made(name: str, program: Program) -> tuple[Setup, str] | None:
    """A program with a mistake, and its place."""
    return broken(program, BY_ID[name], trace_of(program, 0), 0)


def mistaken(name: str, program: Program) -> Setup:
    """A program that has a place for a mistake, with it."""
    found = made(name, program)
    assert found is not None
    return found[0]


class Attending(nn.Module):
    """A tagger whose attention is written out, or called, and hides padding."""

    def __init__(self, called: bool = True) -> None:
        super().__init__()
        self.embed, self.head, self.called = nn.Embedding(20, 16), nn.Linear(16, 3), called

    def forward(self, ids: Tensor, seen: Tensor) -> Tensor:
        x = self.embed(ids)[:, None]
        visible = seen[:, None, None].bool()
        if self.called:
            x = F.scaled_dot_product_attention(x, x, x, attn_mask=visible.expand(-1, 1, ids.shape[1], -1))
        else:
            scores = x @ x.transpose(-1, -2) / 4
            x = scores.masked_fill(~visible, torch.finfo(x.dtype).min).softmax(-1) @ x
        out: Tensor = self.head(x[:, 0])
        return out


def tagged(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the tags of what is no padding."""
    return F.cross_entropy(model(batch["ids"], batch["seen"]).flatten(0, 1), batch["tags"].flatten())


def padded() -> dict[str, Tensor]:
    """Four sentences, the last two of which end early."""
    ids = torch.randint(0, 20, (4, 7), generator=torch.Generator().manual_seed(0))
    seen = torch.ones(4, 7, dtype=torch.long)
    seen[2:, 4:] = 0
    return {"ids": ids, "seen": seen, "tags": torch.where(seen.bool(), ids % 3, -100)}


TAGS = Program(
    "plain/Attending", "plain", Attending, padded, tagged, 0.2, 200, 2e-2,
    traits=frozenset({"ids", "attention_mask", "padding", "labels"}),
)  # fmt: skip
WRITTEN = replace(TAGS, name="plain/Attending-written", model=lambda: Attending(called=False))


class Pixels(nn.Module):
    """A convolution for every pixel, with dropout in a part."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(16, 16, 1))
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


PIXELS = Program(
    "plain/Pixels", "plain", Pixels, lambda: (fixed(4, 3, 8, 8), fixed(4, 1, 8, 8)),
    lambda model, batch: F.mse_loss(model(batch[0]), batch[1]), 1.5, 40, 1e-2,
    traits=frozenset({"image", "dense", "conv", "dropout"}), given={"stochastic": True},
)  # fmt: skip
POINTS = Program(
    "plain/Points", "plain", lambda: nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2)),
    lambda: (fixed(5, 6), fixed(5, 2)), lambda model, batch: F.mse_loss(model(batch[0]), batch[1]), 0.1, 200, 1e-2,
    traits=frozenset({"regression"}),
)  # fmt: skip
CASES = {
    "last_chunk_cut": (SERIES, "silent"),
    "labels_of_first_chunk": (SERIES, "silent"),
    "repeated_for_interleaved": (SERIES, "breaks"),
    "easiest_rows_mined": (TOKENS, "silent"),
    "valid_where_positive": (IMAGES, "silent"),
    "causal_mask_off_by_one": (TOKENS, "silent"),
    "mask_over_queries": (TAGS, "silent"),
    "mask_added_as_numbers": (WRITTEN, "silent"),
    "first_padding_seen": (TAGS, "silent"),
    "rows_not_unsorted": (IMAGES, "silent"),
    "moved_without_target": (PIXELS, "silent"),
    "channels_reversed_in_training": (IMAGES, "silent"),
    "nll_loss_on_logits": (IMAGES, "silent"),
    "coordinates_swapped_in_evaluation": (POINTS, "silent"),
    "eval_left_on": (IMAGES, "silent"),
    "statistics_of_other_data": (IMAGES, "silent"),
    "scaled_in_training_alone": (TOKENS, "silent"),
    "dropout_flag_inverted": (SERIES, "silent"),
    "checkpoint_draws_anew": (PIXELS, "silent"),
    "softmax_as_last_layer": (TOKENS, "breaks"),
    "labels_smoothed_twice": (IMAGES, "breaks"),
    "divided_by_255_twice": (replace(IMAGES, lr=1e-3, model=lambda: Unnormalised()), "breaks"),
    "targets_in_kilometres": (SERIES, "silent"),
    "hook_in_every_call": (TOKENS, "silent"),
    "gradients_left_scaled": (TOKENS, "silent"),
    "summed_for_mean": (replace(SERIES, limit=0.3), "breaks"),
    "term_weighted_away": (SERIES, "silent"),
    "average_and_model_swapped": (IMAGES, "breaks"),
    "modes_swapped": (IMAGES, "silent"),
    "decay_of_another_kind": (IMAGES, "breaks"),
    "second_optimizer_not_stepped": (TOKENS, "silent"),
    "gains_in_no_group": (IMAGES, "silent"),
    "moments_of_another_run": (IMAGES, "breaks"),
    "rate_of_many_devices": (IMAGES, "breaks"),
}


class Unnormalised(nn.Module):
    """A classifier of images that asks for inputs of their scale."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(192, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.first(x.flatten(1)).square())
        return out


def test_every_one_is_a_case() -> None:
    """None of the two files is left out here."""
    assert set(CASES) == written_in("held_back")


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """Each does to a program of torch alone what it says, by the plain loop."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("last_chunk_cut", replace(SERIES, traits=frozenset({"contrastive"}))),  # every sample has all for its loss
        ("labels_of_first_chunk", replace(SERIES, traits=frozenset({"contrastive"}))),
        ("repeated_for_interleaved", replace(IMAGES, batch=lambda: (fixed(8, 3, 8, 8), torch.ones(8).long()))),
        ("easiest_rows_mined", TAGS),  # what is ignored has the smallest loss
        ("valid_where_positive", replace(IMAGES, batch=lambda: (fixed(8, 3, 8, 8), torch.arange(8) % 3 + 1))),
        ("mask_over_queries", TOKENS),  # no padding that stands alone
        ("rows_not_unsorted", TOKENS),  # nothing beside what it reads
        ("moved_without_target", IMAGES),  # a class is the same in a mirror
        ("channels_reversed_in_training", SERIES),  # which axis has the channels is not known
        ("nll_loss_on_logits", SERIES),
        ("labels_smoothed_twice", TAGS),
        ("divided_by_255_twice", replace(PIXELS, batch=lambda: (fixed(4, 1, 8, 8), fixed(4, 1, 8, 8)))),  # told itself
        ("targets_in_kilometres", IMAGES),
        ("coordinates_swapped_in_evaluation", IMAGES),
        ("term_weighted_away", replace(IMAGES, traits=frozenset({"terms"}))),
        ("gains_in_no_group", TAGS),  # matrices and biases are all there is
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """Neighbours in which the same change is meant, or changes nothing."""
    if name == "divided_by_255_twice":
        program = replace(program, model=lambda: nn.Conv2d(1, 1, 1))
    assert made(name, program) is None


@pytest.mark.parametrize(("program", "written"), [(TAGS, False), (WRITTEN, True)])
def test_padding_that_is_hidden_is_known(program: Program, written: bool) -> None:
    """A mask in a call of torch's attention, and one that is filled in; what is to come is told apart."""
    assert trace_of(program, 0).hidings == [Hiding("", future=False, padding=True)]
    assert bool(trace_of(program, 0).attentions) is not written
    assert trace_of(TOKENS, 0).hidings == [Hiding("", future=True, padding=False)]


def readers(model: nn.Module, batch: dict[str, Tensor]) -> list[int]:
    """Which tokens of the third sentence its first token reads."""
    model.eval()
    before = model(batch["ids"], batch["seen"])[2, 0]
    found = []
    for place in range(1, 7):
        other = batch["ids"].clone()
        other[2, place] = (other[2, place] + 1) % 20
        if not torch.allclose(before, model(other, batch["seen"])[2, 0], atol=1e-6):
            found.append(place)
    return found


@pytest.mark.parametrize("program", [TAGS, WRITTEN], ids=lambda program: program.name)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        (None, [1, 2, 3]),
        ("first_padding_seen", [1, 2, 3, 4]),
        ("mask_over_queries", [1, 2, 3, 4, 5, 6]),
        ("mask_added_as_numbers", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_padding_is_read_by_mistake_alone(program: Program, name: str | None, read: list[int]) -> None:
    """One token of padding where lengths are off by one, all of it where the mask hides nothing."""
    model = healthy(program, 0).model if name is None else mistaken(name, program).model
    assert readers(model, padded()) == read


@pytest.mark.parametrize("program", [TAGS, WRITTEN], ids=lambda program: program.name)
def test_mask_that_is_left_alone_changes_nothing(program: Program) -> None:
    """The exchanged attention is the same one where what it hides is the same."""
    model = healthy(program, 0).model
    batch = padded()
    before = model(batch["ids"], batch["seen"])
    exchange_hidden(model, lambda hidden: hidden)
    assert torch.allclose(before, model(batch["ids"], batch["seen"]), atol=1e-6)


def test_next_token_is_seen_and_no_other() -> None:
    """A triangle that begins one diagonal too late; padding behind it stays hidden."""
    model, batch = mistaken("causal_mask_off_by_one", TOKENS).model.eval(), TOKENS.batch()
    before = model(batch["ids"], mask=batch["mask"])
    moved = []
    for place in (3, 4, 5):
        other = batch["ids"].clone()
        other[0, place] = (other[0, place] + 1) % 20
        moved.append(not torch.allclose(before[0, 2], model(other, mask=batch["mask"])[0, 2], atol=1e-6))
    assert moved == [True, False, False]


def test_rows_of_the_model_stay_sorted() -> None:
    """The samples come back in another order, and none is lost."""
    broken_model, batch = mistaken("rows_not_unsorted", SERIES).model.eval(), SERIES.batch()
    right, wrong = healthy(SERIES, 0).model.eval()(batch["x"]), broken_model(batch["x"])
    assert not torch.allclose(right, wrong)
    assert torch.allclose(right.sort(0).values, wrong.sort(0).values, atol=1e-6)


@pytest.mark.parametrize("name", ["moved_without_target", "channels_reversed_in_training"])
def test_evaluation_sees_the_input_as_it_is(name: str) -> None:
    """What is done to inputs in training alone."""
    model, batch = mistaken(name, PIXELS).model, PIXELS.batch()
    right = healthy(PIXELS, 0).model.eval()(batch[0])
    assert torch.equal(model.eval()(batch[0]), right)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.train()
    assert any(not torch.allclose(model(batch[0]), right, atol=1e-6) for _ in range(20))


def test_modes_are_swapped() -> None:
    """Who calls train() has a model in evaluation mode, with all of its parts."""
    model = mistaken("modes_swapped", IMAGES).model
    assert not any(each.training for each in model.train().modules())
    assert all(each.training for each in model.eval().modules())


def test_checkpoint_has_the_loss_and_another_gradient() -> None:
    """The forward pass is the same one; units that counted in it are dropped in the backward pass."""
    runs = [
        train(replace(PIXELS, steps=EARLY), setup, 0)
        for setup in (healthy(PIXELS, 0), mistaken("checkpoint_draws_anew", PIXELS))
    ]
    assert runs[0].losses[0] == runs[1].losses[0]
    name = "body.0.weight"
    assert not torch.allclose(runs[0].gradients[name], runs[1].gradients[name], rtol=1e-2)


def test_hooks_add_up() -> None:
    """A half of the gradient after the first call, an eighth after the third."""
    setup = mistaken("hook_in_every_call", TOKENS)
    sizes = []
    for _ in range(3):
        setup.model.zero_grad()
        setup.loss(setup.model, setup.batch).backward()  # type: ignore[no-untyped-call]
        sizes.append({name: float(each.grad.norm()) for name, each in setup.model.named_parameters()})  # type: ignore[union-attr]
    halved = [name for name in sizes[0] if sizes[2][name] == pytest.approx(sizes[0][name] / 4, rel=1e-3)]
    same = [name for name in sizes[0] if sizes[2][name] == pytest.approx(sizes[0][name], rel=1e-3)]
    assert halved
    assert same
    assert len(halved) + len(same) == len(sizes[0])


@pytest.mark.parametrize(("when", "updates"), [(lambda count: count <= 2, 2), (lambda count: count % 3 == 0, 1)])
def test_steps_are_counted_from_one(when: Callable[[int], bool], updates: int) -> None:
    """The update is made in the steps that are asked for, and the loss is reported in all of them."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    step = train_step(lambda model, batch: model(batch).square().mean(), update=stepping(when))
    states = [model.weight.detach().clone()]
    for _ in range(5):
        assert step(model, fixed(4, 2), optimizer) > 0
        states.append(model.weight.detach().clone())
    assert sum(not torch.equal(a, b) for a, b in itertools.pairwise(states)) == updates
