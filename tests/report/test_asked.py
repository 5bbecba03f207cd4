"""What was asked of a run, in every form that keeps it: page, experiment record, record file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_overfit.diagnose.answers import Answer
from pytest_overfit.diagnose.reached_modules import Reach
from pytest_overfit.errors.asking import NotAsked
from pytest_overfit.report.markdown.experiment import experiment_record
from pytest_overfit.report.record.codec import from_json, to_json
from pytest_overfit.report.record.document import Document
from tests.report.page.pages import page_of, text_of
from tests.support.documents import healthy
from tests.support.markdown import assert_well_formed, tables

ANSWERS = (
    Answer("depends", "what moves the outputs", "the outputs follow a|b, not <c>"),
    Answer("learns", "the run again", "not asked: the run passed, it needs no trial", asked=False),
)
REACHED = (
    Reach("camera", "trunk", None, 0.02, "head.py:7"),
    Reach("camera", "head", 1.25),
    Reach("depth", "trunk", 0.5),
    Reach("depth", "head", None, 0.0),
)
REFUSED = tuple(NotAsked(f"question {number}", "the model refuses it: ValueError") for number in range(9))


@pytest.fixture
def asked() -> Document:
    document = healthy()
    assert document.result is not None
    return replace(document, result=replace(document.result, answers=ANSWERS, not_asked=REFUSED, influence=REACHED))


def test_the_page_has_a_table_and_all_that_was_not_asked(asked: Document, tmp_path: Path) -> None:
    """Each question with its answer, and nothing cut off."""
    text = text_of(page_of(tmp_path, asked))
    for answer in ANSWERS:
        assert f"{answer.question} {answer.measured} {answer.answer}" in text
    for each in REFUSED:  # two elements, which are translated one by one
        assert f"{each.question} : {each.why}" in text


def test_the_page_has_the_terms_by_modules(asked: Document, tmp_path: Path) -> None:
    """A row per term, a cell per module."""
    text = text_of(page_of(tmp_path, asked))
    assert "Term trunk head camera none, reads it (2%) 1.2 depth 0.5 -" in text


@pytest.mark.parametrize(("lang", "title"), [("en", "What was asked"), ("zh", "诊断提问")])
def test_the_experiment_record_has_a_section(asked: Document, lang: str, title: str) -> None:
    text = experiment_record(asked, lang=lang)
    assert_well_formed(text)
    assert f"## {title}" in text
    rows = [row for found in tables(text) for row in found if row[0] in ("depends", "learns")]
    assert [row[0] for row in rows] == ["depends", "learns"]


def test_the_record_file_keeps_them(asked: Document) -> None:
    assert from_json(to_json(asked)) == asked
