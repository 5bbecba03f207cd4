"""What stands where on a page: the failure and its picture first, each thing once, what says nothing left out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.errors.asking import NotAsked
from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.page.charts import charts_of
from pytest_overfit.report.page.images import pictures_of
from pytest_overfit.report.page.overview import overview_of
from pytest_overfit.report.page.telling import telling_of
from pytest_overfit.report.page.write import write_pages
from pytest_overfit.report.record.document import Change, Comparison, Document, SettingRow
from pytest_overfit.report.record.folder import folder_of
from pytest_overfit.run.record import FramePrediction
from tests.report.page.pages import compared, page_of, plain, text_of, write_pictures
from tests.support.documents import (
    broken,
    frozen_trunk,
    frozen_trunk_pictured,
    healthy,
    two_view,
    two_view_pictured,
    unstarted,
)
from tests.support.records import parameter

SHAPES = (
    "RuntimeError: The size of tensor a (4) must match the size of tensor b (8)\n"
    "  shapes: mse_loss of input (8, 4), target (8,) int64\n  where: test_models.py:119\n"
    "  change: test_models.py:119: overfit(Classifier(), sample(), nn.CrossEntropyLoss())"
)
LIMITS = (SettingRow("overfit.criteria.prediction", "abs_rel 0.05, delta_1_25 0.95, rotation_deg 1", "a.yaml"),)


def test_what_was_not_asked_is_told_once(tmp_path: Path) -> None:
    """In the list of its own, and not among the notes again."""
    document = broken("missing_step")
    assert document.result is not None
    asked = tuple(NotAsked(f"question {number}", "out of time") for number in range(7))
    text = text_of(page_of(tmp_path, replace(document, result=replace(document.result, not_asked=asked))))
    assert text.count("question 0") == 1
    assert text.count("question 6") == 1


def test_a_refused_call_is_the_heading(tmp_path: Path) -> None:
    """The shapes that torch refused, its own words below them, and what to change as a line to copy."""
    page = page_of(tmp_path, unstarted(state="finished", error=SHAPES))
    text = text_of(page)
    assert "Nothing was trained: mse_loss of input (8, 4), target (8,) int64: The size" in text
    assert "Why mse_loss of input (8, 4), target (8,) int64 Observed RuntimeError: The size" in text
    assert "Why Finished" not in text
    assert text.count("nn.CrossEntropyLoss()") == 1
    assert 'data-copy="advice"' in page


def test_a_check_that_failed_is_the_heading(tmp_path: Path) -> None:
    """Its observation in the first sentence, and everything else of it once above the criteria."""
    finding = Finding("config", False, "no such folder: /data/x", "paths that exist", "a.yaml", "make it")
    document = unstarted(checks=(finding,), error="Failed: config: no such folder: /data/x")
    page = page_of(tmp_path, document)
    head = text_of(page).partition("Criteria Verdict")[0]
    assert "Nothing was trained: config: no such folder: /data/x." in head
    assert "Why config Observed no such folder: /data/x Allowed paths that exist Where a.yaml Next make it" in head
    assert "<pre" not in page
    (row,) = overview_of([document]).rows
    assert "no such folder" in row.sentence


@pytest.mark.parametrize(
    ("abs_rel", "degrees", "shown"),
    [
        (0.88, 10.0, ["frame_0_depth_true.png", "frame_0_depth_predicted.png", "frame_0_depth_error.png"]),
        (0.06, 40.0, ["cameras.svg"]),
        (0.01, 40.0, ["cameras.svg"]),
        (0.88, 0.1, ["frame_0_depth_true.png", "frame_0_depth_predicted.png", "frame_0_depth_error.png"]),
    ],
)
def test_the_picture_is_of_what_is_furthest_off(
    tmp_path: Path, abs_rel: float, degrees: float, shown: list[str]
) -> None:
    """By how many times what is allowed; its numbers are of the same kind."""
    document, pictures = frozen_trunk_pictured()
    assert document.result is not None
    frame = FramePrediction(0, abs_rel, 0.99, 0.1, 1.0, degrees, 0.1, 0.1)
    said = f"seed 3: frame 0 AbsRel {abs_rel} (4 m off); frame 0 rotation {degrees} deg"
    findings = tuple(Finding(name, False, said, "less", margin=0.1) for name in ("camera", "depth", "prediction"))
    result = replace(document.result, findings=findings, record=replace(document.result.record, predictions=(frame,)))
    document = replace(document, result=result, settings=LIMITS)
    write_pictures(tmp_path, pictures)
    names = (*document.pictures, "cameras.svg")
    (tmp_path / "cameras.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="6" viewBox="">')
    telling = telling_of(document, pictures_of(tmp_path, names))
    assert telling is not None
    assert [picture.file for picture in telling.pictures] == shown
    of = f"AbsRel {abs_rel} (4 m off)" if len(shown) > 1 else f"rotation {degrees} deg"
    assert telling.numbers == f"seed 3: frame 0 {of}"


def test_a_run_that_passes_has_no_picture_of_a_failure(tmp_path: Path) -> None:
    """Nothing was missed."""
    document, pictures = two_view_pictured()
    write_pictures(tmp_path, pictures)
    assert telling_of(document, pictures_of(tmp_path, document.pictures)) is None


def test_a_comparison_comes_first(tmp_path: Path) -> None:
    """Before criteria and curves; no column of seeds for one seed, no ratio of numbers below zero."""
    document = two_view()
    assert document.result is not None
    negative = Change("objective", -0.37, -0.38, math.nan, (math.nan, math.nan), 1, False)
    comparison = Comparison("base", "2026-02-01T09:00:00", (negative,))
    text = text_of(page_of(tmp_path, replace(document, comparison=comparison)))
    assert text.index("Against the saved run base") < text.index("Criteria Verdict")
    assert "Over the seeds" not in text
    assert "nan" not in text.partition("Criteria Verdict")[0]
    several = replace(compared(document.result).changes[0], seeds=3)
    text = text_of(page_of(tmp_path, replace(document, comparison=replace(comparison, changes=(several,)))))
    assert "Over the seeds" in text


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_chart_without_a_number_is_left_out(value: float) -> None:
    """An empty box says nothing."""
    document = plain(curves={"objective": (value,)}, grad_norms={"a": (value,)}, learning_rate=(0.1,))
    assert [chart.id for chart in charts_of(document)] == ["rates"]


def test_the_overview_has_errors_after_misses() -> None:
    """What never trained stands below what trained and missed, above what passed."""
    missed, error, passed = broken("missing_step"), replace(unstarted(), title="a.yaml"), healthy()
    rows = overview_of([passed, error, missed]).rows
    assert [row.title for row in rows] == [missed.title, error.title, passed.title]


def test_the_overview_has_one_command() -> None:
    """Of all files that ran with the same options; another one for other options."""
    documents = [
        replace(plain(), id=str(number), command=command)
        for number, command in enumerate(
            ["pytest a.py::b", "pytest a.py::c", "pytest d.yaml", "pytest e.yaml --overfit-max-steps 3"]
        )
    ]
    assert overview_of(documents).commands == ("pytest a.py d.yaml", "pytest e.yaml --overfit-max-steps 3")


def test_a_margin_is_of_what_was_missed(tmp_path: Path) -> None:
    """Where the limits held and something else failed there is none, neither on the page nor in the overview."""
    findings = (Finding("objective", True, "0.005", "< 0.01", margin=1.6), Finding("twins", False, "apart", "agree"))
    document = plain()
    assert document.result is not None
    document = replace(document, result=replace(document.result, findings=findings))
    assert "Tightest margin" not in text_of(page_of(tmp_path, document))
    assert overview_of([document, plain()]).rows[0].margin == ("", "")
    assert overview_of([plain()]).rows[0].margin == ("", "")


def test_columns_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    """Frozen by and Problem, where nothing is frozen and nothing is wrong."""
    text = text_of(page_of(tmp_path, plain(parameters=(parameter("a.weight"),))))
    head = text[text.index("Parameters Module") :].partition("a.weight")[0]
    assert "Frozen by" not in head
    assert "Problem" not in head.partition("Every parameter")[0]
    frozen = parameter("b.weight", trainable=False, frozen_by="b*", max_grad=None, moved=0.0)
    text = text_of(page_of(tmp_path, plain(parameters=(frozen, parameter("a.weight", moved=0.0)))))
    assert "Frozen by Problem" in text


@pytest.mark.parametrize("make", [frozen_trunk, two_view, lambda: unstarted(state="finished", error=SHAPES)])
def test_no_label_of_a_chinese_page_is_english(tmp_path: Path, make: Any) -> None:
    """Captions, units, times and what a reader of screens hears."""
    document: Document = make()
    document = replace(document, times={"probes": 1.5, "trials": 61.0})
    if document.pictures:
        write_pictures(folder_of(tmp_path, document), frozen_trunk_pictured()[1])
    write_pages(tmp_path, [document], lang="zh")
    page = (folder_of(tmp_path, document) / "index.html").read_text(encoding="utf-8")
    english = (
        "Parameters of",
        "Predicted depth against",
        "Copy",
        "trials",
        "probes 1.5",
        "not moved",
        "never",
        "Finished",
    )
    assert [word for word in english if word in page] == []
