"""Evaluation mode against training, predictions against ground truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_overfit.judge.agreement import judge_prediction, judge_train_val
from pytest_overfit.judge.criteria import judge
from pytest_overfit.run.record import Evaluation, FramePrediction
from pytest_overfit.settings.criteria import Criteria, Limit, Prediction, TrainVal
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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"abs_rel": 0.3}, "frame 1 AbsRel 0.3 (0.15 m off)"),
        ({"delta_1_25": 0.5}, "frame 1 delta<1.25 0.5"),
        ({"rotation_deg": 175.0}, "frame 1 rotation 175 deg"),
        ({"translation_deg": 90.0}, "frame 1 translation 90 deg"),
        ({"abs_rel": float("nan")}, "frame 1 AbsRel nan"),
    ],
)
def test_a_wrong_prediction_is_named_per_frame(change: dict[str, Any], says: str) -> None:
    """Each quantity has its own limit, and the frame is named."""
    first, second = record().predictions
    finding = judge_prediction(record(predictions=(first, replace(second, **change))), Prediction())
    assert not finding.passed
    assert says in finding.observed


def test_a_model_without_depth_or_camera_lists_its_keys() -> None:
    """Nothing to compare is a failure that shows what the model gave."""
    run = record(predictions=(FramePrediction(0),), prediction_keys=("logits",))
    finding = judge_prediction(run, Prediction())
    assert not finding.passed
    assert finding.where == "keys of the prediction: logits"


def test_a_limit_that_is_off_is_not_judged() -> None:
    """None switches one quantity off."""
    first, second = record().predictions
    run = record(predictions=(first, replace(second, rotation_deg=100.0)))
    assert judge_prediction(run, Prediction(rotation_deg=None)).passed


@pytest.mark.parametrize("stop", ["max_seconds", "interrupted", "non_finite", "no_trainable_parameters"])
def test_unfinished_runs_do_not_agree(stop: str) -> None:
    """A run that ended before its time is red here too."""
    assert not judge_train_val(record(stop=stop), TrainVal(), LIMITS).passed
    assert not judge_prediction(record(stop=stop), Prediction()).passed


def test_judge_gives_one_finding_per_criterion_in_order() -> None:
    """All criteria, in the order in which a config's items stand; switched-off ones are absent.

    The last, defects, takes more than a record to judge.
    """
    criteria = Criteria(train_val=TrainVal(), camera=None)
    findings = judge(record(), criteria)
    assert [*(finding.name for finding in findings), "defects"] == list(criteria.names())
    assert "camera" not in criteria.names()
    assert all(finding.passed for finding in findings)
