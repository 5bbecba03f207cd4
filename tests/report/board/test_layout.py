"""What a TensorBoard file shows besides curves."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import cast

import pytest

from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.board.layout import LimitLines, chart_layout, code_block, hyperparameters, verdict_metrics
from pytest_overfit.result import OverfitResult
from pytest_overfit.settings.criteria import Limit
from tests.support.records import record

PASSED = OverfitResult(record(), (Finding("camera", True, "loss_camera 0.0005", "< 0.001", margin=2.0),))


def test_a_limit_with_two_bounds_is_two_lines() -> None:
    """One bound needs no further name."""
    lines = LimitLines({"camera": Limit(0.001), "accuracy": Limit(above=0.9, below=1.1)})
    assert lines.values() == {"limits/camera": 0.001, "limits/accuracy/below": 1.1, "limits/accuracy/above": 0.9}


def test_a_share_of_the_start_is_drawn_where_it_lies() -> None:
    """Known after as many steps as the limit averages over; a start that is not above zero has no line."""
    lines = LimitLines({"depth": Limit(0.1, relative=True, window=2), "objective": Limit(0.1, relative=True)})
    lines.see({"objective": -1.0, "loss_reg_depth": 4.0})
    assert lines.values() == {}
    lines.see({"objective": 8.0, "loss_reg_depth": 2.0})
    lines.see({"objective": 8.0, "loss_reg_depth": 99.0})
    assert lines.values() == {"limits/depth": pytest.approx(0.3)}


def test_curve_and_limit_are_in_one_chart() -> None:
    """The patterns find the tags that are written, and no others, whatever a term is called."""
    limits = {"objective": Limit(0.01), "depth": Limit(0.01), "iou(3+)": Limit(above=0.5), "unknown": Limit(1.0)}
    charts = chart_layout(limits, ["objective", "loss_reg_depth", "iou(3+)"])["limits"]
    assert list(charts) == ["objective", "depth", "iou(3+)"]

    def found(chart: str, tags: list[str]) -> list[str]:
        patterns = cast("list[str]", charts[chart][1])
        return [tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)]

    tags = [
        "train/iou(3+)",
        "val/iou(3+)",
        "watch/limits/iou(3+)",
        "watch/limits/iou(3+)/above",
        "train/iou(33)",
        "train/iou(3+)x",
    ]
    assert found("iou(3+)", tags) == tags[:4]
    assert found("depth", ["train/loss_depth", "val/loss_depth", "train/loss_depth_2"]) == tags_of("loss_depth")
    assert found("objective", ["train/loss_objective", "val/loss_objective"]) == tags_of("loss_objective")


def tags_of(term: str) -> list[str]:
    return [f"train/{term}", f"val/{term}"]


def test_without_limits_there_is_no_chart_of_them() -> None:
    """Rates and norms are charted all the same."""
    assert list(chart_layout({}, ["objective"])) == ["training"]


def test_the_verdict_is_among_the_hyperparameters() -> None:
    """What the run was given, how it ended, and its strongest cause."""
    given = hyperparameters(PASSED, {"camera": Limit(0.001)})
    assert (given["verdict"], given["cause"], given["lr"], given["limit camera"]) == ("passed", "none", 1e-3, "< 0.001")
    assert [*given][:2] == ["verdict", "lr"]
    warmed = replace(PASSED, record=replace(PASSED.record, learning_rate=(1e-5, 1e-3, 1e-4)))
    assert hyperparameters(warmed, {})["lr"] == 1e-3
    missed = replace(PASSED, findings=(Finding("depth", False, "0.1", "< 0.01"), *PASSED.findings))
    assert hyperparameters(missed, {})["verdict"] == "missed depth"
    assert hyperparameters(replace(PASSED, findings=()), {})["verdict"] == "not judged"


def test_the_verdict_as_numbers() -> None:
    """A margin that is infinite cannot be drawn."""
    assert verdict_metrics(PASSED) == {"verdict/passed": 1.0, "verdict/steps": 100.0, "verdict/margin": 2.0}
    endless = (Finding("objective", True, "-0.3", "< 0.01", margin=float("inf")),)
    assert verdict_metrics(replace(PASSED, findings=endless)) == {"verdict/passed": 1.0, "verdict/steps": 100.0}


def test_a_text_cannot_leave_its_code_block() -> None:
    """Fences, markup, escape sequences and tabs are text like any other."""
    assert code_block("a\n```\n<b>\x1b[31mred\tx") == "    a\n    ```\n    <b>?[31mred     x"
