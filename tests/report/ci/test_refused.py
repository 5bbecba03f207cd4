"""What stops a session before any run is on the page of the job, and beside the line that it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.report.ci.refused import refused_annotation, refused_summary
from pytest_overfit.report.ci.workspace import in_workspace
from tests.support.configs import TINY


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ("a.yaml: threds: found an unknown key\n  change: a.yaml:7: threads: 1", "file=a.yaml,line=7,"),
        ("nosuch.yaml: no such file", "file=nosuch.yaml,"),
        ("pytest.ini: overfit_strickt: no ini key", "file=pytest.ini,"),
        ("--overfit-reprot: no option of ours", ""),
    ],
)
def test_the_annotation_is_where_the_message_is_about(message: str, place: str) -> None:
    said = refused_annotation(message)
    assert said.startswith(f"::error {place}title=overfit%3A nothing was run::")
    assert "\n" not in said
    assert message in refused_summary(message)


@pytest.mark.parametrize("name", ["tiny.yaml", "nosuch.yaml"])
def test_a_session_that_never_starts_leaves_a_page(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """From the root of the workspace, though pytest starts in a folder of it."""
    folder = pytester.mkdir("svc")
    (folder / "tiny.yaml").write_text(TINY.replace("max_epochs", "max_epoch"), encoding="utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    monkeypatch.chdir(folder)
    result = pytester.runpytest_inprocess("--overfit-config", name, "--rootdir", ".")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    line = next(line for line in result.outlines if line.startswith("::error"))
    assert ("file=svc/tiny.yaml,line=" in line) == (name == "tiny.yaml")
    assert f"file=svc/{name}," in line
    told = (pytester.path / "summary.md").read_text(encoding="utf-8")
    assert told.startswith("## pytest-overfit: nothing was run")
    assert ("max_epoch" if name == "tiny.yaml" else "nosuch.yaml") in told


def test_a_path_outside_of_the_workspace_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.py").touch()
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "there"))
    monkeypatch.chdir(tmp_path)
    assert in_workspace("there/a.py") == "a.py"
    assert in_workspace("b.py") == "b.py"
    assert in_workspace("a\0b.py") == "a\0b.py"  # what no file can be called is told as it is
    monkeypatch.delenv("GITHUB_WORKSPACE")
    assert in_workspace("there/a.py") == "there/a.py"


def test_a_summary_that_cannot_be_written_keeps_the_error(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "nowhere" / "summary.md"))
    result = pytester.runpytest_inprocess("--overfit-config", "nosuch.yaml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert any(line.startswith("GITHUB_STEP_SUMMARY: ") for line in result.errlines)
    assert any("nosuch.yaml" in line for line in result.errlines)
