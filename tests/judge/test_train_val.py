"""Evaluation mode against training."""

from __future__ import annotations

import pytest

from pytest_overfit.judge.train_val import TrainVal, judge_train_val
from pytest_overfit.run.record import Evaluation
from pytest_overfit.settings.criteria import Limit
from tests.support.records import record

LIMITS = {"objective": Limit(0.01), "camera": Limit(0.001), "depth": Limit(0.01)}


def test_equal_losses_agree() -> None:
    """The healthy record is green."""
    assert judge_train_val(record(), TrainVal(), LIMITS).passed


def test_a_worse_evaluation_mode_is_named_with_both_values() -> None:
    """Dropout or batch statistics: evaluation is worse than training and above the limit."""
    train = {"objective": 0.005, "loss_camera": 0.0005}
    run = record(evaluation=Evaluation(train=train, val={"objective": 0.4, "loss_camera": 0.0005}))
    finding = judge_train_val(run, TrainVal(), LIMITS)
    assert not finding.passed
    assert finding.observed == "objective 0.4 in evaluation, 0.005 in training"


def test_both_above_the_limit_but_equal_agree() -> None:
    """Agreement is about the two modes; missing the limit is the objective's verdict."""
    values = {"objective": 0.5}
    assert judge_train_val(record(evaluation=Evaluation(values, {"objective": 0.52})), TrainVal(), LIMITS).passed


def test_nan_in_evaluation_does_not_agree() -> None:
    """NaN is never within tolerance."""
    run = record(evaluation=Evaluation({"objective": 0.005}, {"objective": float("nan")}))
    assert not judge_train_val(run, TrainVal(), LIMITS).passed


@pytest.mark.parametrize("evaluation", [None, Evaluation({}, {})])
def test_nothing_to_compare_is_a_failure(evaluation: Evaluation | None) -> None:
    """No evaluation, no agreement."""
    assert not judge_train_val(record(evaluation=evaluation), TrainVal(), LIMITS).passed


@pytest.mark.parametrize("stop", ["max_seconds", "interrupted", "non_finite", "no_trainable_parameters"])
def test_unfinished_runs_do_not_agree(stop: str) -> None:
    """A run that ended before its time is red here too."""
    assert not judge_train_val(record(stop=stop), TrainVal(), LIMITS).passed
