"""Every form of a report at once, and what is left of them where the pages cannot be made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_overfit.cli import main
from pytest_overfit.errors import OverfitError
from pytest_overfit.report.publish import write_forms
from pytest_overfit.report.record.folder import folder_of, write_document
from tests.document.runs import document, result


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
