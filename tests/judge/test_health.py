"""Finite numbers, living gradients, real supervision, one constant sample."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_overfit.errors.asking import NotAsked
from pytest_overfit.judge.constant_batch import judge_constant_batch
from pytest_overfit.judge.finite import judge_finite
from pytest_overfit.judge.gradients import judge_gradients
from pytest_overfit.judge.supervised import Supervised, judge_supervised
from pytest_overfit.run.record import BatchRecord, FreezeMatch, NonFinite
from pytest_overfit.run.supervision_record import Agreement, Fall, FrameRecord, Share, Supervision
from pytest_overfit.settings.criteria import Limit
from tests.support.records import falling, parameter, record

LIMITS = {"objective": Limit(0.01), "camera": Limit(0.001), "depth": Limit(0.01)}


def supervision(**changes: Any) -> Supervision:
    healthy = record().supervision
    assert healthy is not None
    return Supervision(**{**vars(healthy), **changes})


def test_a_healthy_run_passes_everything() -> None:
    """The base record is green, so each red below has one reason."""
    run = record()
    assert judge_finite(run).passed
    assert judge_gradients(run).passed
    assert judge_supervised(run, Supervised(), LIMITS).passed
    assert judge_constant_batch(run).passed


def test_the_first_non_finite_tensor_and_module_are_named() -> None:
    """A NaN that the loss hides is still found in the raw prediction."""
    run = record(non_finite=NonFinite(3, "prediction pose_enc_list.3", "camera_head.mlp (Linear)"))
    assert judge_finite(run).text() == (
        "finite: prediction pose_enc_list.3 is not finite at step 3, allowed finite losses, predictions, gradients and "
        "state\n"
        "  where: first in module camera_head.mlp (Linear)\n"
        "  next: a loss that replaces NaN by 0 hides this: mend the module named here, then look at its inputs"
    )


def test_no_step_is_not_finite() -> None:
    """A run without steps has shown nothing."""
    assert not judge_finite(record(steps=0)).passed


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"in_optimizer": False, "moved": 0.0}, "not in the optimizer"),
        ({"max_grad": None, "moved": 0.0}, "no gradient arrives"),
        ({"max_grad": 0.0, "moved": 0.0}, "the gradient is zero at every step"),
        ({"moved": 0.0}, "does not move"),
        ({"trainable": False, "in_optimizer": True, "moved": 0.2}, "frozen, yet moves"),
        ({"trainable": False, "in_optimizer": False, "frozen_by": "*head*", "moved": 0.2}, "frozen, yet moves"),
    ],
)
def test_a_parameter_that_does_not_learn_is_named(changes: dict[str, Any], says: str) -> None:
    """Each way of not learning has its own sentence and the parameter's name."""
    run = record(parameters=(parameter("trunk.weight"), parameter("camera_head.bias", **changes)))
    finding = judge_gradients(run)
    assert not finding.passed
    assert finding.observed == f"1 parameter tensors: {says}"
    assert finding.where == "camera_head.bias"


def test_a_parameter_that_moves_on_purpose_is_no_frozen_one() -> None:
    """The teacher of a moving average: no gradient, no optimizer, moved by the train step itself."""
    teacher = parameter("teacher.weight", trainable=False, in_optimizer=False, max_grad=None, moved=0.2)
    assert judge_gradients(record(parameters=(parameter(), teacher))).passed


def test_a_gradient_between_two_looks_is_proved_by_the_movement() -> None:
    """Gradients are sampled; without a gradient no optimizer moves a parameter."""
    assert judge_gradients(record(parameters=(parameter(max_grad=None, moved=0.2),))).passed


def test_declared_exceptions_show() -> None:
    """Unused and frozen by pattern; without the declaration each is a problem."""
    pooler = parameter("pooler.weight", max_grad=None, moved=0.0)
    backbone = parameter("backbone.weight", in_optimizer=False, moved=0.0)
    run = record(parameters=(parameter(), pooler, backbone))
    finding = judge_gradients(run, unused=["pooler.*"], frozen=["backbone.*"])
    assert finding.observed == "1 tensors learn, 1 frozen as declared; declared: pooler.* unused, backbone.* frozen"
    assert not judge_gradients(run, unused=["pooler.*"]).passed
    assert not judge_gradients(run, frozen=["backbone.*"]).passed


def test_lr_zero_is_named() -> None:
    """Nothing moves because the learning rate is 0, and the finding says exactly that."""
    run = record(parameters=(parameter(moved=0.0),), learning_rate=(0.0,) * 100)
    assert judge_gradients(run).observed == ("1 parameter tensors: does not move: the learning rate is 0 at every step")


def test_everything_frozen_names_the_pattern() -> None:
    """A pattern that froze the whole model is shown with its count."""
    frozen = tuple(parameter(f"p{i}", trainable=False, moved=0.0, max_grad=None) for i in range(3))
    run = record(parameters=frozen, freeze_matches=(FreezeMatch("*", 3, 36),), steps=0, curves={})
    finding = judge_gradients(run)
    assert not finding.passed
    assert finding.observed == "all 3 parameter tensors are frozen"
    assert finding.where == "frozen by '*' (3 tensors)"


def test_many_culprits_are_cut_to_a_few() -> None:
    """Long lists are shortened with a count."""
    run = record(parameters=tuple(parameter(f"p{i}", max_grad=None, moved=0.0) for i in range(9)))
    assert judge_gradients(run).where == "p0, p1, p2, p3 and 5 more"


def test_a_loss_that_starts_below_its_limit_proves_nothing() -> None:
    """The all-zero dummy batch: every loss is 0 from the first step."""
    run = record(curves={"objective": (0.0,) * 9, "loss_camera": (0.0,) * 9, "loss_reg_depth": (0.0,) * 9})
    finding = judge_supervised(run, Supervised(), LIMITS)
    assert not finding.passed
    assert "loss_camera starts at 0, already below its limit 0.001" in finding.observed


def test_a_term_that_ignores_its_target_is_found() -> None:
    """A camera loss that does not move when the cameras do supervises nothing."""
    answers = {"extrinsics": {"loss_camera": 0.0}, "intrinsics": {"loss_camera": 0.0}, "depths": {"loss_reg_depth": 1}}
    run = record(supervision=supervision(answers={**answers, "depths": {"loss_reg_depth": 0.1, "objective": 0.1}}))
    finding = judge_supervised(run, Supervised(), LIMITS)
    assert not finding.passed
    assert "loss_camera does not answer when extrinsics or intrinsics change" in finding.observed


def test_a_loss_without_the_model_is_found() -> None:
    """A zero gradient at the first step means the loss does not depend on the model."""
    finding = judge_supervised(record(grad_norms={"head": (0.0, 0.0)}), Supervised(), LIMITS)
    assert not finding.passed
    assert "does not depend on the model" in finding.observed


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frames": (FrameRecord(0, 800, 1000), FrameRecord(1, 0, 1000))}, "frame 1 has 0 valid depth pixels of 1000"),
        ({"frames": (FrameRecord(0, 99, 1000),)}, "frame 0 has 99 valid depth pixels of 1000"),
        ({"image_difference": 0.0}, "the two images are the same"),
        ({"pose_difference": 0.0}, "the two cameras are the same"),
    ],
)
def test_too_little_to_see_is_found(changes: dict[str, Any], says: str) -> None:
    """Empty frames and identical views cannot show that anything was learnt."""
    finding = judge_supervised(record(supervision=supervision(**changes)), Supervised(), LIMITS)
    assert not finding.passed
    assert says in finding.observed


def test_a_run_whose_targets_were_not_probed_is_not_supervised() -> None:
    """A criterion that is on while its probe is off must not claim that the loss answers."""
    finding = judge_supervised(record(supervision=None), Supervised(), LIMITS)
    assert not finding.passed
    assert finding.observed.startswith("the targets were not probed")
    assert "overfit.criteria.supervised: false" in str(finding.hint)


def test_a_run_of_no_steps_is_not_supervised() -> None:
    """Nothing trained, nothing shown."""
    run = record(steps=0, curves={}, grad_norms={}, supervision=None)
    assert not judge_supervised(run, Supervised(), LIMITS).passed


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (BatchRecord("a" * 64, "a" * 64, ("images: largest difference 0.2",), ()), "two draws differ: images"),
        (BatchRecord("a" * 64, "b" * 64, (), ()), "the batch was changed during the run"),
        (BatchRecord("a" * 64, "a" * 64, (), ("augs.color_jitter is on",)), "augs.color_jitter is on"),
        (None, "was not fingerprinted"),
    ],
)
def test_a_sample_that_changes_is_found(batch: BatchRecord | None, says: str) -> None:
    """By the loader, by the model, or by the config: each is named."""
    finding = judge_constant_batch(record(batch=batch))
    assert not finding.passed
    assert says in finding.observed


def test_falling_helper_really_falls() -> None:
    """The support curve starts and ends where it says."""
    assert falling(4.0, 0.5)[0] == 4.0
    assert falling(4.0, 0.5)[-1] == 0.5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"falls": {"objective": Fall(1.1, 0.004, 0.004)}},
         "objective falls without the weights: back at the initial weights it is 0.004, it started at 1.1"),
        ({"falls": {"score": Fall(0.1, 0.9, 0.9)}},
         "score rises without the weights: back at the initial weights it is 0.9"),
        ({"falls": {"objective": Fall(1.0, 0.0, 1.0, 0.01, 0.02, ("loss.w",))}},
         "objective falls by loss.w alone, which change no output: 0.01 with the initial model, 0.02 for other"),
        ({"falls": {"objective": Fall(1.0, 0.0, 1.0, exchanged=0.02)}},
         "objective does not answer to the target any more: for another one it is 0.02, it started at 1"),
        ({"agreement": Agreement(0.003, 2.1, 1.0, 1.0)},
         "the step reports 0.003, the loss of the same model on this batch is 2.1"),
        ({"shares": {"y": Share(1, 40)}}, "the loss reads little of y: 2% of 40 elements, at least 25% wanted"),
        ({"shares": {"y": Share(3, 24, tried=True)}}, "the loss reads little of y: 3 of 24 elements tried"),
        ({"copied": "1 stands in 0: column 4"}, "1 stands in 0: column 4"),
    ],
)  # fmt: skip
def test_a_pass_that_proves_nothing_is_found(changes: dict[str, Any], says: str) -> None:
    """Each answer to what is asked of a run that has passed has its sentence."""
    finding = judge_supervised(record(supervision=supervision(**changes)), Supervised(), LIMITS)
    assert not finding.passed
    assert says in finding.observed


@pytest.mark.parametrize(
    "changes",
    [
        {"falls": {"objective": Fall(1.1, 0.004, 0.7)}},
        {"falls": {"objective": Fall(1.1, 0.004, 2.5)}},
        {"falls": {"objective": Fall(1.0, 0.0, 1.0, 0.01, 5.0, ("loss.centres",))}},
        {"agreement": Agreement(0.009, 0.02, 3.0, 1.0)},
        {"agreement": Agreement(-2.0, 0.5, -1.0, 1.0)},
        {"shares": {"weights": Share(1, 40, certain=False)}},
        {"shares": {"y": Share(10, 40)}},
    ],
)
def test_an_honest_pass_is_none_of_these(changes: dict[str, Any]) -> None:
    """Half of a fall, a factor between step and loss, a head beside the model, a tensor that is no target."""
    assert judge_supervised(record(supervision=supervision(**changes)), Supervised(), LIMITS).passed


BROKEN = NotAsked("what the loss answers to", "IndexError: 3", ours=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"falls": {"objective": Fall(1.1, 0.004, 0.004)}}, "objective falls without the weights"),
        ({"agreement": Agreement(0.003, 2.1, 1.0, 1.0)}, "the step reports 0.003"),
        ({"shares": {"y": Share(1, 40)}}, "the loss reads little of y"),
        ({"copied": "1 stands in 0: column 4"}, "1 stands in 0: column 4"),
        ({"image_difference": 0.0}, "the two images are the same"),
    ],
)
def test_what_was_answered_counts_where_another_question_broke(changes: dict[str, Any], says: str) -> None:
    """A mistake of ours leaves its own question open, and no other."""
    told = supervision(**{"answers": {}, "not_asked": (BROKEN,), **changes})
    finding = judge_supervised(record(supervision=told), Supervised(), LIMITS)
    assert finding.judged
    assert not finding.passed
    assert finding.observed.startswith(says)


def test_what_broke_alone_is_not_judged() -> None:
    """Nothing is held against the user, and nothing is passed."""
    for answers in ({}, record().supervision.answers):  # type: ignore[union-attr]
        told = supervision(answers=answers, not_asked=(BROKEN,))
        finding = judge_supervised(record(supervision=told), Supervised(), LIMITS)
        assert not finding.judged
        assert "what the loss answers to" in finding.observed


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"changed_at": 8}, "the batch was changed during the run, and put back before its end"),
        ({"written": "labels"}, "labels is changed within a step, and put back before its end"),
    ],
)
def test_a_change_that_was_undone_is_found(batch: dict[str, Any], says: str) -> None:
    """The bytes at the end say nothing about those between."""
    same = "aa" * 32
    finding = judge_constant_batch(record(batch=BatchRecord(same, same, (), (), **batch)))
    assert not finding.passed
    assert finding.observed == says


def test_a_lucky_first_value_of_a_noisy_loss_is_no_start_below_its_limit() -> None:
    """A limit on a mean starts with a mean; one value and the mean below it are a start that proves nothing."""
    noisy, low = (0.001, *[0.8] * 24, *[0.004] * 40), (*[0.004] * 65,)
    for curve, passes in ((noisy, True), (low, False)):
        run = record(curves={"objective": curve}, steps=65)
        assert judge_supervised(run, Supervised(), {"objective": Limit(0.01, window=25)}).passed is passes
