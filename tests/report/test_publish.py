"""Every form of a report at once, and what is left of them where the pages cannot be made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_overfit.cli import main
from pytest_overfit.errors import OverfitError
from pytest_overfit.report.publish import write_forms
from pytest_overfit.report.record.folder import folder_of, write_document
from tests.report.record.runs import document, result
from tests.support.outside import install, python


@pytest.mark.parametrize("absent", [("bokeh",), ("jinja2",), ("jinja2", "bokeh")])
def test_without_what_the_pages_need_everything_else_is_written(
    absent: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line with the command that helps; the records, the summary and the schema are there."""
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    one = document(result())
    write_document(tmp_path, one)
    with pytest.raises(OverfitError) as told:
        write_forms(tmp_path, [one])
    assert f"pages need {' and '.join(absent)}, which" in str(told.value)
    assert 'next: pip install "pytest-overfit[pages]"' in str(told.value)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    folder = folder_of(tmp_path, one).relative_to(tmp_path).as_posix()
    assert written == {"summary.md", "schema.json", f"{folder}/record.json", f"{folder}/record.md"}


def test_the_command_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pytest-overfit report` ends with that line, and with an exit code."""
    write_document(tmp_path, document(result()))
    monkeypatch.setitem(sys.modules, "bokeh", None)
    assert main(["report", str(tmp_path)]) != 0
    assert 'pip install "pytest-overfit[pages]"' in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "index.html").is_file()


FORM = """
from pytest_overfit.report.record.folder import write_text


def write(report, documents, *, lang):
    rows = [f"{document.title},{document.verdict}" for document in documents]
    write_text(report / "verdicts.csv", "\\n".join(["title,verdict", *rows]) + "\\n")
"""


@pytest.mark.parametrize("installed", [True, False])
def test_a_form_of_another_package_is_written_too(tmp_path: Path, installed: bool) -> None:
    """One function and an entry point; without it there is no such file."""
    points = "[pytest_overfit.forms]\nverdicts = their_form:write\n" if installed else ""
    outside = install(tmp_path, "their_form", FORM, points)
    write_document(tmp_path / "report", document(result(), title="test_a.py::test_learns"))
    assert "report: " in python(outside, "", "-m", "pytest_overfit.cli", "report", "report")
    written = tmp_path / "report" / "verdicts.csv"
    assert written.is_file() == installed
    if installed:
        assert written.read_text(encoding="utf-8") == "title,verdict\ntest_a.py::test_learns,passed\n"
