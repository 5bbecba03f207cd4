"""The fifth set, in steps and evaluation: each does what it says to a program of torch alone, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from benchmarks.wild.case import Program
from benchmarks.wild.check import train
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, fixed
from tests.benchmarks.wild.test_fifth import assert_no_place, setup_of
from tests.benchmarks.wild.test_fifth_layers import CHAIN
from tests.benchmarks.wild.test_held_back import POINTS, TAGS


class Weight(nn.Module):
    """A weight without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(fixed(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


CASES = {
    "large_gradients_skipped": (POINTS, "breaks"),
    "scheduler_told_the_loss": (CHAIN, "silent"),
    "cosine_stepped_past_its_end": (TAGS, "silent"),
    "rate_set_in_first_group": (SERIES, "silent"),
    "pruned_anew_in_every_step": (CHAIN, "silent"),
    "stale_gradient_of_frozen_part": (SERIES, "silent"),
    "frozen_by_part_of_name": (CHAIN, "silent"),
    "zero_grad_between_terms": (SERIES, "breaks"),
    "gradients_clamped_above_zero": (POINTS, "silent"),
    "weights_of_four_bits_in_evaluation": (CHAIN, "silent"),
}


def test_every_one_is_a_case() -> None:
    """None of the set is without a program here."""
    assert set(CASES) == written_in("fifth_steps")


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("pruned_anew_in_every_step", replace(POINTS, model=Weight)),  # no layer
        ("frozen_by_part_of_name", POINTS),  # no name that is part of another
        ("zero_grad_between_terms", POINTS),  # one term
        ("weights_of_four_bits_in_evaluation", replace(POINTS, model=lambda: nn.Linear(6, 2))),
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    assert_no_place(name, program)


def test_frozen_part_moves() -> None:
    """The user says that it is frozen, it needs no gradient, and every step moves it on."""
    setup = setup_of("stale_gradient_of_frozen_part", SERIES)
    still = [name for name, each in setup.model.named_parameters() if not each.requires_grad]
    assert {f"{name.rpartition('.')[0]}.*" for name in still} == set(setup.given["frozen"])
    run = train(replace(SERIES, steps=3), setup, 0)
    assert all(not torch.equal(run.start[name], run.early[name]) for name in still)


def test_more_is_frozen_than_the_user_says() -> None:
    """What has the same number in its name, in another list."""
    setup = setup_of("frozen_by_part_of_name", CHAIN)
    still = {name for name, each in setup.model.named_parameters() if not each.requires_grad}
    (meant,) = setup.given["frozen"]
    declared = {name for name in still if name.startswith(meant[:-1])}
    assert declared
    assert declared < still < {name for name, _ in setup.model.named_parameters()}


def test_pruned_weights_stay_pruned_and_become_more() -> None:
    """The zeros after one step are zeros after three, and others with them."""
    setup = setup_of("pruned_anew_in_every_step", IMAGES)
    counts = []
    for _ in range(3):
        train(replace(IMAGES, steps=1), setup, 0)
        counts.append(sum(int((each == 0).sum()) for each in setup.model.parameters() if each.dim() > 1))
    assert 0 < counts[0] < counts[1] < counts[2]


def test_weights_are_exact_again_after_evaluation() -> None:
    """16 values at most in between."""
    model = setup_of("weights_of_four_bits_in_evaluation", POINTS).model
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    out = model.train()(fixed(5, 6))
    model.eval().eval()
    assert len(set(model.get_parameter("0.weight").flatten().tolist())) <= 16
    assert not torch.allclose(out, model(fixed(5, 6)))
    model.train()
    assert all(torch.equal(each, before[name]) for name, each in model.named_parameters())
