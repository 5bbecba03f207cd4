"""The eighth set: each does what it says to a program of torch alone, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.wild.case import Program
from benchmarks.wild.check import train
from benchmarks.wild.operators import BY_ID
from benchmarks.wild.operators.operator import healthy
from benchmarks.wild.split import LATER, LOOKED_AT
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS, fixed
from tests.benchmarks.wild.test_fifth import assert_no_place, setup_of
from tests.benchmarks.wild.test_fifth_layers import CHAIN
from tests.benchmarks.wild.test_held_back import PIXELS, POINTS

CASES = {
    "cumulative_over_batch": (POINTS, "silent"),
    "additive_mask_made_boolean": (TOKENS, "silent"),
    "rows_left_unfilled": (IMAGES, "breaks"),
    "weight_rounded_without_straight_through": (POINTS, "silent"),
    "fused_with_activation_in_evaluation": (POINTS, "silent"),
    "tied_by_copy_in_every_call": (CHAIN, "silent"),
    "weight_norm_of_zero_weight": (POINTS, "breaks"),
    "ramp_counted_in_forward": (POINTS, "silent"),
    "total_not_reset": (POINTS, "breaks"),
    "log_of_log_probabilities": (IMAGES, "breaks"),
    "nearly_all_smoothed": (IMAGES, "breaks"),
    "penalty_without_graph": (POINTS, "silent"),
    "plateau_in_wrong_mode": (POINTS, "breaks"),
    "annealed_past_its_end": (SERIES, "breaks"),
    "halves_joined_as_they_finish": (POINTS, "breaks"),
}


def test_every_one_is_a_case_and_held_out() -> None:
    """None of the set is without a program here, none has been looked at, and each is of another kind."""
    assert set(CASES) == written_in("eighth_")
    assert written_in("eighth_") <= LATER - LOOKED_AT
    assert len({BY_ID[name].kind for name in CASES}) == len(CASES) == 15


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("additive_mask_made_boolean", IMAGES),
        ("rows_left_unfilled", replace(POINTS, batch=lambda: (fixed(2, 6), fixed(2, 2)))),
        ("tied_by_copy_in_every_call", IMAGES),  # no two layers have weights of one shape
        ("log_of_log_probabilities", POINTS),
        ("nearly_all_smoothed", POINTS),
        ("penalty_without_graph", TOKENS),  # whose inputs are whole numbers
        ("annealed_past_its_end", POINTS),
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    assert_no_place(name, program)


def test_last_samples_stay_at_zero() -> None:
    """Four samples are one chunk, and the fifth is in none."""
    setup = setup_of("rows_left_unfilled", POINTS)
    out: Tensor = setup.model(setup.batch[0])
    assert [bool(each.any()) for each in out] == [True, True, True, True, False]


def test_weight_that_is_rounded_has_no_gradient() -> None:
    """It alone: what is around it learns."""
    setup = setup_of("weight_rounded_without_straight_through", POINTS)
    setup.loss(setup.model, setup.batch).backward()  # type: ignore[no-untyped-call]
    still = [name for name, each in setup.model.named_parameters() if each.grad is None or not each.grad.any()]
    assert len(still) == 1
    assert still[0].endswith("weight")


def test_penalty_is_in_the_loss_and_not_in_its_gradient() -> None:
    """The gradients are those of the healthy program, whose loss is smaller, and the batch is as it was."""
    setup, right = setup_of("penalty_without_graph", POINTS), healthy(POINTS, 0)
    values = [each.loss(each.model, each.batch) for each in (setup, right)]
    for value in values:
        value.backward()  # type: ignore[no-untyped-call]
    assert values[0] > values[1]
    pairs = zip(setup.model.parameters(), right.model.parameters(), strict=True)
    assert all(
        torch.equal(one.grad, other.grad) for one, other in pairs if one.grad is not None and other.grad is not None
    )
    assert not setup.batch[0].requires_grad


def test_rate_is_divided_while_the_loss_falls() -> None:
    """Eleven steps without a rise are patience enough."""
    setup = setup_of("plateau_in_wrong_mode", POINTS)
    setup.optimizer = POINTS.optimizer(setup.model.parameters(), POINTS.lr)
    train(replace(POINTS, steps=12), setup, 0)
    assert setup.optimizer.param_groups[0]["lr"] == pytest.approx(POINTS.lr / 10)


def test_outputs_are_rectified_in_evaluation_alone() -> None:
    """In training they are as they were."""
    setup, right = setup_of("fused_with_activation_in_evaluation", PIXELS), healthy(PIXELS, 0)
    given = setup.batch[0]
    for each in (setup, right):
        torch.manual_seed(0)
        each.given["trained"] = each.model.train()(given)
    assert torch.equal(setup.given["trained"], right.given["trained"])
    assert torch.equal(setup.model.eval()(given), right.model.eval()(given).relu())
