"""The folder of a report: names that every platform takes, files that are whole."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_overfit.errors import OverfitError
from pytest_overfit.report.folders import refuse_unwritable
from pytest_overfit.report.record.folder import latest_session, read_document, read_report, write_document
from pytest_overfit.report.record.run_ids import run_id
from tests.report.record.runs import FAILING, document, result
from tests.support.documents import SESSION

HOSTILE = (
    "CON",
    "../../etc/passwd",
    "a/b.py::test[x/y\\z]",
    "a::b?<>:*|\"'",
    "x" * 500,
    "",
    ".",
    "..",
    "模型.yaml",
    "nul.txt",
)


@pytest.mark.parametrize("title", HOSTILE)
def test_names_are_safe(title: str) -> None:
    """Letters, digits, dot, dash, underscore; no reserved name, no way out of the folder, no trailing dot."""
    name = run_id(title)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*-[0-9a-f]{8}", name)
    assert len(name) < 80
    assert name.partition(".")[0].upper() not in {"CON", "NUL", "PRN", "AUX"}


@given(st.text(), st.text())
def test_names_differ_where_titles_do(one: str, other: str) -> None:
    """Also where they differ by case or by a character that is not kept."""
    assert (run_id(one).lower() == run_id(other).lower()) == (one == other)


def test_calls_of_one_test_have_names_of_their_own() -> None:
    assert len({run_id("t", call) for call in (1, 2, 3)}) == 3


def test_documents_are_read_back_in_order(tmp_path: Path) -> None:
    """By title; those of another session stay on disk and out of this report."""
    first, second = document(result()), document(result(lr=1e-6), FAILING)
    old = document(None, "tests/test_old.py::test_gone", session="old", written="2025-01-01T00:00:00+00:00")
    for each in (second, old, first):
        write_document(tmp_path, each)
    assert read_report(tmp_path, session=SESSION) == (first, second)
    assert latest_session(read_report(tmp_path)) == (first, second)
    assert read_document(tmp_path / "runs" / first.id) == first
    assert len(read_report(tmp_path)) == 3


def test_a_broken_record_of_another_session_is_let_be(tmp_path: Path) -> None:
    """It keeps nobody from reading the others; asked for everything, it is told."""
    written = document(result())
    write_document(tmp_path, written)
    (tmp_path / "runs" / "old").mkdir()
    (tmp_path / "runs" / "old" / "record.json").write_text('{"overfit": {"version": 0}}')
    assert read_report(tmp_path, session=written.session) == (written,)
    with pytest.raises(OverfitError, match=r"old.record\.json: a record of version 0"):
        read_report(tmp_path)


def test_a_failed_write_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle loses nothing and leaves no scrap."""
    written = document(result())
    path = write_document(tmp_path, written)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_document(tmp_path, replace(written, title="other"))
    assert read_document(path) == written
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    """Before anything is trained."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OverfitError, match="allowed: a folder that can be written"):
        refuse_unwritable(tmp_path / "file" / "report")


def test_a_missing_record_is_told(tmp_path: Path) -> None:
    with pytest.raises(OverfitError, match=r"no such file\n  next: name a record.json"):
        read_document(tmp_path)
