"""The sixth set, of order, steps and terms: each does what it says to a program of torch alone, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.wild.case import Program
from benchmarks.wild.check import train
from benchmarks.wild.operators.operator import healthy
from benchmarks.wild.split import LATER, LOOKED_AT
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS, fixed
from tests.benchmarks.wild.test_fifth import assert_no_place, setup_of
from tests.benchmarks.wild.test_fifth_layers import CHAIN
from tests.benchmarks.wild.test_held_back import POINTS
from tests.benchmarks.wild.test_sixth_copies import CAUSAL

CASES = {
    "processes_joined_in_evaluation": (CHAIN, "silent"),
    "layer_reads_backwards": (CAUSAL, "silent"),
    "ids_sorted_by_embedding": (CAUSAL, "silent"),
    "term_of_model_added_again": (SERIES, "silent"),
    "term_summed_beside_mean": (SERIES, "breaks"),
    "clipped_each_by_itself": (POINTS, "silent"),
    "weights_restored_behind_step": (CHAIN, "silent"),
    "batch_norm_behind_last_layer": (IMAGES, "silent"),
}


def test_every_one_is_a_case_and_held_out() -> None:
    """None of the set is without a program here, and none has been looked at."""
    assert set(CASES) == written_in("sixth_steps")
    assert len(written_in("sixth_")) == 28
    assert written_in("sixth_") <= LATER - LOOKED_AT


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("processes_joined_in_evaluation", replace(POINTS, batch=lambda: (fixed(2, 6), fixed(2, 2)))),
        ("layer_reads_backwards", TOKENS),  # its attention is no part
        ("ids_sorted_by_embedding", POINTS),
        ("term_of_model_added_again", POINTS),
        ("term_summed_beside_mean", POINTS),
        ("clipped_each_by_itself", replace(POINTS, model=lambda: torch.nn.Linear(6, 2, bias=False))),
        ("weights_restored_behind_step", replace(POINTS, model=lambda: torch.nn.Linear(6, 2))),
        ("batch_norm_behind_last_layer", TOKENS),  # tokens
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    assert_no_place(name, program)


def test_every_second_output_comes_first() -> None:
    """In evaluation, and not in training."""
    right, wrong = healthy(POINTS, 0).model, setup_of("processes_joined_in_evaluation", POINTS).model
    x = fixed(5, 6)
    assert torch.equal(wrong.train()(x), right(x))
    assert torch.equal(wrong.eval()(x), right(x)[[0, 2, 4, 1, 3]])


def test_future_is_seen() -> None:
    """What the first token says answers to a later one."""
    for setup, leaks in ((healthy(CAUSAL, 0), False), (setup_of("layer_reads_backwards", CAUSAL), True)):
        ids = setup.batch["ids"]
        other = ids.clone()
        other[:, -3] = (other[:, -3] + 1) % 20
        with torch.no_grad():
            one, two = (setup.model(each)[:, 0] for each in (ids, other))
        assert torch.allclose(one, two, atol=1e-6) != leaks


def test_rows_are_those_of_sorted_ids() -> None:
    """The smallest ids of the batch come first, whosever they are."""
    embed = setup_of("ids_sorted_by_embedding", CAUSAL).model.get_submodule("embed")
    right = healthy(CAUSAL, 0).model.get_parameter("embed.weight")
    with torch.no_grad():
        assert torch.equal(embed(torch.tensor([[7, 3], [0, 5]])), right[torch.tensor([[0, 3], [5, 7]])])


def test_term_counts_twice_in_the_gradient_alone() -> None:
    """The loss that is told is the healthy one's."""
    quiet = replace(SERIES, steps=1)
    runs = [train(quiet, setup, 0) for setup in (healthy(quiet, 0), setup_of("term_of_model_added_again", quiet))]
    assert runs[0].losses == runs[1].losses
    one, two = (run.gradients["head.bias"] for run in runs)
    assert bool((two - one)[0].abs() > 1e-3)
    assert torch.allclose(one[1], two[1])  # which the second term does not read


def test_each_gradient_is_clipped() -> None:
    """None is above the limit, and the small ones are as they were."""
    quiet = replace(POINTS, steps=1)
    runs = [train(quiet, setup, 0) for setup in (healthy(quiet, 0), setup_of("clipped_each_by_itself", quiet))]
    right, wrong = ({name: float(each.norm()) for name, each in run.gradients.items()} for run in runs)
    limit = 0.1 * max(right.values())
    assert all(wrong[name] == pytest.approx(min(limit, right[name]), rel=0.05) for name in right)


def test_layer_is_what_it_was_after_the_step() -> None:
    """One weight never moves, in all of the run, and all others do."""
    run = train(replace(CHAIN, steps=3), setup_of("weights_restored_behind_step", CHAIN), 0)
    still = [name for name in run.start if torch.equal(run.start[name], run.early[name])]
    assert len(still) == 1
    assert still[0].endswith("weight")


def test_outputs_of_a_batch_have_no_mean() -> None:
    """Each of them, over the samples."""
    model = setup_of("batch_norm_behind_last_layer", POINTS).model.train()
    assert model(fixed(5, 6)).detach().mean(0).tolist() == pytest.approx([0, 0], abs=1e-5)
