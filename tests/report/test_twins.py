"""Twins in every form of a report: the page, its chart, the record in Markdown, the JSON."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_overfit.report.markdown.experiment import experiment_record
from pytest_overfit.report.page.charts import charts_of
from pytest_overfit.report.publish import write_forms
from pytest_overfit.report.record.codec import from_json, to_json
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.folder import folder_of, write_document
from pytest_overfit.run.twin_record import TwinResult
from tests.report.record.runs import document, result

TOLD = (
    TwinResult("fused (foreach)", "agreed", "Adam with foreach=True", steps=2, curve=(0.5, 0.25)),
    TwinResult(
        *("resume", "disagreed", "saved after step 1, loaded by save and load"),
        steps=1,
        step=2,
        what="the loss",
        size=0.5,
        missing=("lr of Adam, group 0",),
        curve=(0.3,),
        first=2,
    ),
    TwinResult("compile", "not asked", why="there is no C++ compiler here"),
)


def with_twins() -> Document:
    made = result()
    return document(replace(made, record=replace(made.record, twins=TOLD)))


def test_the_page_lays_the_curves_over_each_other(tmp_path: Path) -> None:
    """One chart, the run and each twin from the step that it began at; a row for each, whatever became of it."""
    one = with_twins()
    (chart,) = [chart for chart in charts_of(one) if chart.id == "twins"]
    assert [(line.name, list(line.steps or ())) for line in chart.lines[1:]] == [
        ("fused (foreach)", [1, 2]),
        ("resume", [2]),
    ]
    assert all(switch.on for switch in chart.switches)
    write_document(tmp_path, one)
    write_forms(tmp_path, [one])
    page = (folder_of(tmp_path, one) / "index.html").read_text(encoding="utf-8")
    for text in ("the same run, executed otherwise", "not brought back: lr of Adam, group 0", "no C++ compiler"):
        assert text in page


def test_a_run_without_twins_has_no_section() -> None:
    """Neither a chart nor a heading."""
    one = document(result())
    assert "twins" not in [chart.id for chart in charts_of(one)]
    assert "Twins" not in experiment_record(one)


def test_the_markdown_and_the_json_say_the_same() -> None:
    """In both languages; nothing is lost on the way."""
    one = with_twins()
    for lang in ("en", "zh"):
        told = experiment_record(one, lang=lang)
        assert all(twin.name in told for twin in TOLD)
        assert "lr of Adam, group 0" in told
    back = from_json(to_json(one))
    assert back.result is not None
    assert back.result.record.twins == TOLD
