"""Operators do what they say to small programs: a healthy one stays below its limit, a mistake changes the training."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.check import EARLY, differs, effect, train
from benchmarks.wild.measure import Row, checked
from benchmarks.wild.operators import BY_ID, OPERATORS
from benchmarks.wild.operators.operator import broken, healthy
from benchmarks.wild.operators.trace import trace_of
from tests.benchmarks.wild.programs import IMAGES, PROGRAMS, SERIES, TOKENS

CHEAP = {
    "zero_grad_forgotten": (TOKENS, "breaks"),
    "backward_doubled": (TOKENS, "silent"),
    "copy_trained": (TOKENS, "silent"),
    "part_not_optimized": (TOKENS, "silent"),
    "tie_lost": (TOKENS, "silent"),
    "features_detached": (TOKENS, "silent"),
    "layer_not_called": (IMAGES, "silent"),
    "layer_not_registered": (IMAGES, "silent"),
    "softmax_doubled": (IMAGES, "breaks"),
    "viewed_for_permuted": (TOKENS, "silent"),
    "last_row_ignored": (TOKENS, "silent"),
    "class_ignored": (IMAGES, "silent"),
    "shift_forgotten": (TOKENS, "silent"),
    "batch_first_swapped": (SERIES, "silent"),
    "normalised_over_batch": (TOKENS, "silent"),
    "mask_hides_nothing": (TOKENS, "silent"),
    "causal_mask_forgotten": (TOKENS, "silent"),
    "momentum_zero": (IMAGES, "silent"),
    "dropout_always_on": (SERIES, "silent"),
    "term_detached": (SERIES, "breaks"),
    "all_zero": (IMAGES, "breaks"),
    "integer_division": (IMAGES, "breaks"),
    "half_without_scaler": (TOKENS, "breaks"),
}


def test_operators_are_many_and_say_what_they_do() -> None:
    """Forty operators of every kind, each with a sentence, a name of its own, and at least one cause."""
    assert len(BY_ID) == len(OPERATORS) >= 40
    assert min(Counter(each.kind for each in OPERATORS).values()) >= 2
    assert all(each.text.endswith(".") and each.causes for each in OPERATORS)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_healthy_program_stays_below_its_limit(program: Program) -> None:
    """What the mistakes are put into is no mistake itself."""
    run = train(program, healthy(program, 0), 0)
    assert run.reached < program.limit
    assert not differs(run, run)


@pytest.mark.parametrize("name", CHEAP)
def test_mistake_is_a_case(name: str) -> None:
    """Breaking where the limit is missed, silent where it is met and the training is another one."""
    program, expected = CHEAP[name]
    row = checked(BY_ID[name], program, 0)
    assert isinstance(row, Row)
    assert (row.effect, row.operator, row.right) == (expected, name, BY_ID[name].causes)
    assert row.where


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_places_are_seeded_choices(program: Program) -> None:
    """Of every operator the same place for the same seed, wherever it has one."""
    trace = trace_of(program, 0)
    made = {mistake.id: [broken(program, mistake, trace, 0) for _ in range(2)] for mistake in OPERATORS}
    places = {name: [one and one[1] for one in twice] for name, twice in made.items()}
    assert {name: first for name, (first, _) in places.items()} == {
        name: second for name, (_, second) in places.items()
    }
    assert any(first for first, _ in places.values())


def test_what_changes_nothing_is_dropped() -> None:
    """A map that is flipped before a global mean: the same losses, gradients and evaluation."""
    assert checked(BY_ID["flipped_in_training"], replace(IMAGES, model=OnlyMean, limit=9.0, steps=10), 0) == "nothing"


class OnlyMean(nn.Module):
    """One convolution and a mean over all of its map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 64, 1), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.stem(x)).mean((2, 3)))
        return out


def test_effect_needs_the_limit() -> None:
    """A run that ends above the limit breaks, however much it resembles the healthy one."""
    run = train(replace(TOKENS, steps=EARLY), healthy(TOKENS, 0), 0)
    assert effect(TOKENS, run, run) == "breaks"
    assert effect(replace(TOKENS, limit=100.0), run, run) == "nothing"


def test_tracing_leaves_the_random_generator_alone() -> None:
    """Whoever looks at a program before it is trained changes nothing of its run."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    trace = trace_of(SERIES, 0)
    assert torch.equal(before, torch.get_rng_state())
    assert [call.function for call in trace.losses] == ["mse_loss", "l1_loss"]
