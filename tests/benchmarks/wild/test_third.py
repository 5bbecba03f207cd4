"""The third set of held-out operators: each does what it says to a program of torch alone, and nowhere else."""

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
from benchmarks.wild.operators.operator import broken, healthy
from benchmarks.wild.operators.trace import trace_of
from tests.benchmarks.wild.cases import assert_case, written_in
from tests.benchmarks.wild.programs import IMAGES, SERIES, TOKENS, fixed
from tests.benchmarks.wild.test_held_back import PIXELS, POINTS, TAGS, Attending
from tests.benchmarks.wild.test_unseen import classified


class Timed(nn.Module):
    """A series of noise that is told by a timestep for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.time = nn.Linear(4, 32), nn.Embedding(8, 32)
        self.mix, self.out = nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = torch.relu(self.enter(x) + self.time(t)[:, None])
        out: Tensor = self.out(torch.relu(self.mix(x)))
        return out


class Hidden(Attending):
    """The tagger, with its mask by keyword."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return super().forward(ids, mask)


def masked(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of the tags of what is no padding."""
    return F.cross_entropy(model(batch["ids"], mask=batch["seen"]).flatten(0, 1), batch["tags"].flatten())


TIMED = Program(
    "plain/Timed", "plain", Timed, lambda: (fixed(6, 5, 4), torch.arange(1, 7), fixed(6, 5, 4).roll(1, 0)),
    lambda model, batch: F.mse_loss(model(batch[0], batch[1]), batch[2]), 0.4, 200, 1e-2,
    traits=frozenset({"regression", "embedding"}),
)  # fmt: skip
HIDDEN = replace(TAGS, name="plain/Hidden", model=Hidden, loss=masked)
TABLE = Program(
    "plain/Table", "plain",
    lambda: nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3)),
    lambda: (5 * fixed(9, 6) + 3, torch.arange(9) % 3), classified, 0.2, 200, 1e-2,
    traits=frozenset({"table", "labels", "batchnorm", "norm"}),
)  # fmt: skip
CASES = {
    "stepped_after_every_part": (TAGS, "silent"),
    "iterator_advanced_twice": (TAGS, "silent"),
    "overflowing_scale_never_lowered": (TAGS, "breaks"),
    "unscaled_twice": (TAGS, "silent"),
    "climb_not_taken_back": (TAGS, "silent"),
    "gradient_mask_inverted": (SERIES, "silent"),
    "warm_up_in_whole_numbers": (TAGS, "silent"),
    "second_moment_underflows": (TAGS, "silent"),
    "average_without_buffers": (TABLE, "silent"),
    "traced_before_training": (TAGS, "silent"),
    "no_decay_group_without_rate": (IMAGES, "silent"),
    "trust_ratio_of_zero": (IMAGES, "silent"),
    "decayed_without_rate": (IMAGES, "breaks"),
    "log_of_uncertainty_forgotten": (SERIES, "silent"),
    "absolute_value_forgotten": (POINTS, "silent"),
    "term_of_another_repeated": (SERIES, "silent"),
    "normaliser_detached": (TAGS, "silent"),
    "border_not_compared": (TIMED, "silent"),
    "median_for_mean": (POINTS, "silent"),
    "weights_fall_with_row": (IMAGES, "silent"),
    "large_losses_clamped": (IMAGES, "breaks"),
    "loss_divided_by_itself": (IMAGES, "breaks"),
    "outputs_averaged_into_targets": (POINTS, "silent"),
    "logits_of_unit_length": (TAGS, "breaks"),
    "softmax_in_evaluation": (TAGS, "silent"),
    "classes_in_another_order_in_evaluation": (IMAGES, "silent"),
    "teacher_never_loaded": (TAGS, "breaks"),
    "constant_left_out_of_backward": (TOKENS, "silent"),
    "backward_ignores_incoming": (POINTS, "breaks"),
    "rectified_through_data": (TAGS, "silent"),
    "nan_gradients_zeroed": (SERIES, "silent"),
    "sampled_without_reparameterising": (TOKENS, "silent"),
    "state_carried_over": (SERIES, "silent"),
    "part_copied_in_forward": (SERIES, "silent"),
    "adapter_zero_on_both_sides": (TAGS, "silent"),
    "adapter_merged_in_every_call": (TAGS, "silent"),
    "gains_start_at_zero": (IMAGES, "breaks"),
    "embedding_rows_equal": (TAGS, "silent"),
    "norms_in_bfloat16": (TOKENS, "silent"),
    "running_statistics_swapped": (TABLE, "silent"),
    "softmax_between_layers": (TAGS, "breaks"),
    "part_skipped_in_evaluation": (TOKENS, "silent"),
    "keys_for_values": (TOKENS, "silent"),
    "first_head_for_all": (TOKENS, "silent"),
    "token_shift_along_batch": (TAGS, "silent"),
    "tokens_hidden_at_random": (HIDDEN, "silent"),
    "mask_forgotten_in_evaluation": (replace(HIDDEN, lr=0.3), "silent"),
    "second_input_all_zero": (TIMED, "silent"),
    "last_step_not_read": (SERIES, "silent"),
    "masked_in_place": (TAGS, "breaks"),
    "put_back_by_same_order": (IMAGES, "breaks"),
}


def test_every_one_is_a_case() -> None:
    """None of the set is without a program here."""
    assert set(CASES) == written_in("third_")


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns of some of them
@pytest.mark.parametrize("name", CASES)
def test_mistake_is_a_case(name: str) -> None:
    """By the plain loop: the limit is missed, or met by another training."""
    assert_case(name, *CASES[name])


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("term_of_another_repeated", TAGS),  # one term
        ("log_of_uncertainty_forgotten", replace(SERIES, given={"unbounded": True})),  # the sign of the loss is open
        ("softmax_in_evaluation", SERIES),
        ("border_not_compared", IMAGES),  # nothing beside classes
        ("median_for_mean", TAGS),  # what is ignored has no loss
        ("trust_ratio_of_zero", TAGS),  # nothing starts at zero
        ("state_carried_over", TOKENS),
        ("adapter_zero_on_both_sides", PIXELS),
        ("first_head_for_all", TAGS),  # one head
        ("second_input_all_zero", SERIES),
        ("last_step_not_read", IMAGES),
        ("masked_in_place", IMAGES),
        ("put_back_by_same_order", TOKENS),  # nothing that tells samples apart
    ],
)
def test_no_place_where_it_is_no_mistake(name: str, program: Program) -> None:
    """A program without the line that is mistaken is left as it is."""
    assert broken(program, BY_ID[name], trace_of(program, 0), 0) is None


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("traced_before_training", TAGS),
        ("softmax_in_evaluation", TAGS),
        ("classes_in_another_order_in_evaluation", IMAGES),
        ("running_statistics_swapped", TABLE),
        ("part_skipped_in_evaluation", TOKENS),
        ("mask_forgotten_in_evaluation", HIDDEN),
        ("adapter_merged_in_every_call", TAGS),
    ],
)
def test_training_is_left_alone(name: str, program: Program) -> None:
    """What is mistaken in evaluation alone starts with the loss of the healthy program."""
    made = broken(program, BY_ID[name], trace_of(program, 0), 0)
    assert made is not None
    runs = [train(replace(program, steps=1), setup, 0) for setup in (healthy(program, 0), made[0])]
    assert runs[0].losses == pytest.approx(runs[1].losses)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("constant_left_out_of_backward", POINTS),
        ("rectified_through_data", TAGS),
        ("normaliser_detached", TAGS),
    ],
)
def test_gradient_is_not_that_of_the_loss(name: str, program: Program) -> None:
    """A small step along the gradient changes the loss by another amount than the gradient says."""
    shares = []
    made = broken(program, BY_ID[name], trace_of(program, 0), 0)
    assert made is not None
    for setup in (healthy(program, 0), made[0]):
        before = setup.loss(setup.model, setup.batch)
        before.backward()  # type: ignore[no-untyped-call]
        found = [(each, each.grad) for each in setup.model.parameters() if each.grad is not None]
        with torch.no_grad():
            for each, gradient in found:
                each.sub_(gradient, alpha=1e-3)
            after = setup.loss(setup.model, setup.batch)
        shares.append(
            float(before.detach() - after) / (1e-3 * sum(float(gradient.square().sum()) for _, gradient in found))
        )
    assert shares[0] == pytest.approx(1, abs=0.1)
    assert shares[1] != pytest.approx(1, abs=0.1)


def test_frozen_weight_of_an_adapter_is_declared() -> None:
    """The user of an adapter says that the weight beside it stays."""
    made = broken(TAGS, BY_ID["adapter_zero_on_both_sides"], trace_of(TAGS, 0), 0)
    assert made is not None
    still = [name for name, each in made[0].model.named_parameters() if not each.requires_grad]
    assert made[0].given["frozen"] == still
