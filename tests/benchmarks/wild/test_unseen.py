"""The second set of held-out operators: each does what it says to a program of torch alone, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.operators import BY_ID
from benchmarks.wild.operators.operator import broken
from benchmarks.wild.operators.trace import trace_of
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS, fixed
from tests.benchmarks.wild.test_held_back import TAGS, WRITTEN


class Unit(nn.Module):
    """A classifier by the angle between features and classes, behind a softmax over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.score, self.head = nn.Linear(6, 16), nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        weights = self.weigh(self.score(x))
        out: Tensor = self.head(10 * F.normalize((weights * x).sum(1), dim=-1))
        return out

    def weigh(self, scores: Tensor) -> Tensor:
        """Weights of the tokens."""
        return scores.softmax(1)


def classified(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of a class for each sample."""
    return F.cross_entropy(model(batch[0]), batch[1])


UNIT = Program(
    "plain/Unit", "plain", Unit, lambda: (fixed(6, 5, 6), torch.arange(6) % 3), classified, 0.2, 200, 1e-2,
    traits=frozenset({"labels", "attention"}),
)  # fmt: skip
CASES = {
    "accumulated_without_division": (TAGS, "silent"),
    "divided_by_accumulation_twice": (TAGS, "silent"),
    "zero_grad_in_accumulation": (TAGS, "breaks"),
    "zero_grad_of_part_forgotten": (TAGS, "silent"),
    "zero_grad_every_tenth": (TAGS, "silent"),
    "schedule_rebuilt_in_step": (TAGS, "breaks"),
    "clip_before_unscale": (TAGS, "silent"),
    "critic_clipping_on_model": (TAGS, "breaks"),
    "held_by_two_optimizers": (TAGS, "silent"),
    "gradients_underflow_in_half": (TAGS, "silent"),
    "weights_rounded_after_step": (TAGS, "silent"),
    "copy_never_synchronised": (TAGS, "breaks"),
    "evaluated_by_slow_average": (TAGS, "silent"),
    "rate_and_momentum_swapped": (SERIES, "breaks"),
    "layer_decay_compounded": (IMAGES, "breaks"),
    "sgd_at_rate_of_adam": (TAGS, "breaks"),
    "loss_overwritten_in_loop": (TAGS, "silent"),
    "first_output_for_all": (SERIES, "breaks"),
    "means_compared": (SERIES, "silent"),
    "sorted_before_compared": (SERIES, "silent"),
    "softmax_on_targets": (IMAGES, "breaks"),
    "nll_loss_on_probabilities": (TAGS, "silent"),
    "prediction_clamped": (SERIES, "breaks"),
    "targets_truncated": (SERIES, "silent"),
    "loss_on_ignored_alone": (TAGS, "silent"),
    "targets_divided_in_place": (SERIES, "silent"),
    "relu_behind_last_layer": (IMAGES, "breaks"),
    "penalty_of_all_weights": (TAGS, "breaks"),
    "parameter_not_wrapped": (TAGS, "silent"),
    "parameter_cast_outside": (TAGS, "silent"),
    "weight_read_through_data": (TAGS, "silent"),
    "norm_statistics_detached": (TOKENS, "silent"),
    "checkpoint_of_first_part": (IMAGES, "silent"),
    "list_never_cleared": (TAGS, "silent"),
    "running_sum_for_mean": (TAGS, "breaks"),
    "initialised_in_forward": (TAGS, "silent"),
    "clamp_bounds_swapped": (TAGS, "breaks"),
    "keep_rate_for_drop_rate": (SERIES, "breaks"),
    "statistics_reset_in_step": (IMAGES, "silent"),
    "layer_of_ones": (TAGS, "silent"),
    "parameter_left_empty": (TAGS, "breaks"),
    "norm_epsilon_huge": (IMAGES, "breaks"),
    "mask_after_softmax": (TAGS, "silent"),
    "mask_not_handed_to_layer": (TAGS, "silent"),
    "attention_sees_itself_alone": (TOKENS, "breaks"),
    "attention_dropout_always_on": (TAGS, "silent"),
    "scores_multiplied": (TAGS, "silent"),
    "attention_weights_detached": (TAGS, "silent"),
    "maximum_over_batch": (UNIT, "silent"),
    "standardised_over_batch": (IMAGES, "silent"),
    "positions_along_batch": (TAGS, "silent"),
    "unit_length_over_batch": (UNIT, "silent"),
    "shuffled_in_place": (IMAGES, "breaks"),
    "mixed_without_targets": (IMAGES, "breaks"),
    "normalised_in_training_alone": (IMAGES, "silent"),
    "inputs_truncated": (IMAGES, "silent"),
    "timestamp_among_features": (SERIES, "breaks"),
}


def test_every_one_is_a_case() -> None:
    """None of the set is without a program here."""
    assert set(CASES) == written_in("unseen_")


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns of some of them
@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("first_output_for_all", IMAGES),
        ("loss_on_ignored_alone", IMAGES),
        ("statistics_reset_in_step", TOKENS),
        ("prediction_clamped", TOKENS),
        ("attention_sees_itself_alone", TAGS),
        ("scores_multiplied", WRITTEN),
        ("timestamp_among_features", TOKENS),
        ("unit_length_over_batch", SERIES),
        ("keep_rate_for_drop_rate", IMAGES),
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    assert broken(program, BY_ID[name], trace_of(program, 0), 0) is None
