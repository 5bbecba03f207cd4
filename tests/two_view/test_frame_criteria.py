"""Predictions against ground truth, frame by frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_overfit.run.record import FramePrediction
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.two_view.frame_criteria import Prediction, judge_prediction
from tests.support.records import record


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"abs_rel": 0.3}, "frame 1 AbsRel 0.3 (0.15 m off)"),
        ({"delta_1_25": 0.5}, "frame 1 delta<1.25 0.5"),
        ({"rotation_deg": 175.0}, "frame 1 rotation 175 deg"),
        ({"translation_deg": 90.0}, "frame 1 translation 90 deg"),
        ({"fov_deg": 30.0}, "frame 1 field of view 30 deg"),
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
def test_the_predictions_of_unfinished_runs_are_none(stop: str) -> None:
    """A run that ended before its time is red here too."""
    assert not judge_prediction(record(stop=stop), Prediction()).passed


def test_a_camera_far_off_under_a_low_loss_is_another_encoding() -> None:
    """Half a turn is nothing that more steps would mend, whether the other limits hold or not."""
    first, second = record().predictions
    turned = (first, replace(second, rotation_deg=180.0))
    assert "the encoding of its targets" in (judge_prediction(record(predictions=turned), Prediction()).hint or "")
    curves = {"objective": (1.0, 0.5), "loss_camera": (1.0, 0.0009)}
    cut = record(predictions=turned, stop="max_steps", curves=curves)
    assert "the encoding of its targets" in (judge_prediction(cut, Prediction()).hint or "")
    early = record(predictions=turned, stop="max_steps", curves={**curves, "loss_camera": (1.0, 0.3)})
    assert "did not reach its limits" in (judge_prediction(early, Prediction()).hint or "")
    limits = {"camera": Limit(0.4), "objective": Limit(0.6, relative=True)}
    assert "the losses hold their limits" in (judge_prediction(early, Prediction(), limits).hint or "")
    limits["camera"] = Limit(0.2)
    assert "did not reach its limits" in (judge_prediction(early, Prediction(), limits).hint or "")


def test_what_no_limit_was_held_against_is_no_pass() -> None:
    """Limits on angles say nothing of a model that predicts depth alone; nor does one frame of another."""
    shallow = (FramePrediction(0, abs_rel=0.9), FramePrediction(1, abs_rel=0.9))
    assert not judge_prediction(record(predictions=shallow), Prediction(abs_rel=None, delta_1_25=None)).passed
    good = FramePrediction(0, abs_rel=0.01, delta_1_25=1.0)
    finding = judge_prediction(record(predictions=(good, FramePrediction(1))), Prediction())
    assert finding.observed == "frame 1: nothing of it is compared"
    finding = judge_prediction(record(predictions=(good,)), Prediction())
    assert finding.passed
    assert "rotation" not in finding.allowed  # of a model without a camera
