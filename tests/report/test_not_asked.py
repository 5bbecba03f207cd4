"""What was not asked, and what could not be judged, in every form of a report: never a pass, never "none found"."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_overfit.errors.asking import REPORT, NotAsked
from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.ci.junit import user_properties
from pytest_overfit.report.ci.summary import summary_markdown
from pytest_overfit.report.markdown.experiment import experiment_record
from pytest_overfit.report.record.document import Document
from pytest_overfit.text.table import call_line, criteria_table
from tests.report.page.pages import page_of, text_of
from tests.support.documents import broken, healthy
from tests.support.markdown import assert_well_formed, items, tables

OURS = NotAsked(
    "the floor of the loss", "IndexError: tuple index out of range (diagnose/questions/loss_floor.py:9)", ours=True
)
REFUSED = NotAsked("the loss in evaluation mode", "the model, the loss or the step refuses it: ValueError: | length")
UNJUDGED = Finding("defects", False, f"not asked: {OURS.question}", "no mistake that is certain", judged=False)


@pytest.fixture
def unasked() -> Document:
    """A run that passes, with a mistake of ours in its diagnosis."""
    document = healthy()
    assert document.result is not None
    findings = (*(f for f in document.result.findings if f.name != "defects"), UNJUDGED)
    return replace(document, result=replace(document.result, findings=findings, not_asked=(REFUSED, OURS)))


def test_the_verdict_of_the_criteria_stands(unasked: Document) -> None:
    """A row that was not judged fails nothing, and alone it is no pass."""
    assert unasked.result is not None
    assert unasked.verdict == "passed"
    assert not replace(unasked.result, findings=(UNJUDGED,)).passed


def test_the_terminal_says_skipped(unasked: Document) -> None:
    """In the table, in the line of a call, and a note for each question."""
    assert unasked.result is not None
    assert criteria_table([UNJUDGED])[1] == "skipped  defects    not asked: the floor of the loss"
    assert "not judged: defects" in call_line(unasked.result.findings, [unasked.result.record])
    told = unasked.result.summary().splitlines()
    assert [line for line in told if "not asked: the" in line and line.startswith("note")] == [
        f"note: {OURS.text()}",
        f"note: {REFUSED.text()}",
    ]


def test_the_page_has_a_badge_of_its_own(unasked: Document, tmp_path: Path) -> None:
    """Neither passed nor failed, and the list of what was not asked says why."""
    text = text_of(page_of(tmp_path, unasked))
    assert "skipped defects not asked: the floor of the loss" in text
    for each in (OURS, REFUSED):
        assert f"{each.question} : {each.why}{f' ; {REPORT}' if each.ours else ''}" in text


def test_markdown_says_not_judged(unasked: Document) -> None:
    """In the summary of a job and in the experiment record."""
    summary, kept = summary_markdown([unasked]), experiment_record(unasked)
    for source in (summary, kept):
        assert_well_formed(source)
        assert any(OURS.text() in item for item in items(source))
    assert [row[0] for table in tables(summary) for row in table if "defects" in row] == ["not judged"]
    assert "defects (not judged): not asked: the floor of the loss" in items(kept)
    assert "未判定" in experiment_record(unasked, "zh")


def test_properties_say_not_judged(unasked: Document) -> None:
    """What CI services keep."""
    assert dict(user_properties(unasked))["overfit.defects"] == "not judged: not asked: the floor of the loss"


def test_no_cause_beside_open_questions_is_no_all_clear(tmp_path: Path) -> None:
    """A failed run without a cause says that not everything was asked."""
    document = broken("missing_step")
    assert document.result is not None
    open_ = replace(document, result=replace(document.result, causes=(), not_asked=(OURS,)))
    assert open_.result is not None
    said = "no cause is proven, shown or observed, and not everything was asked"
    assert f"why: {said}" in open_.result.failure_text()
    assert said.capitalize() in text_of(page_of(tmp_path, open_))
    assert said in summary_markdown([open_])
