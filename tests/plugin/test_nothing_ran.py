"""A session without an overfit run: the page of its job and its report say so, and whether it fails for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.text.translations import translated
from tests.plugin.conftest import TinyConfig

OTHER = "def test_one(): pass\n\ndef test_two(): pass"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> Path:
    """The page of a job of GitHub's."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    return pytester.path / "summary.md"


LEFT_OUT = "No overfit run was made in this session: 2 tests were deselected."
NONE = "No overfit run was made in this session."


@pytest.mark.parametrize(
    ("args", "code", "notes"),
    [
        (("-k", "nothing", "--overfit-strict"), 1, (LEFT_OUT, "It fails for that: --overfit-strict.")),
        (("--overfit-strict",), 1, (NONE, "It fails for that: --overfit-strict.")),
        (
            ("-k", "nothing", "--overfit-report", "report"),
            5,
            (LEFT_OUT, "It fails for that: pytest ends with exit code 5 where no test ran."),
        ),
        (
            ("--overfit-report", "report"),
            0,
            (NONE, "It passes, and proves nothing: --overfit-strict makes it fail."),
        ),
    ],
)
def test_the_page_of_the_job_says_so(
    pytester: pytest.Pytester, service: Path, args: tuple[str, ...], code: int, notes: tuple[str, ...]
) -> None:
    """And whether it is red for that; an annotation where it is."""
    pytester.makepyfile(OTHER)
    result = pytester.runpytest_inprocess(*args)
    assert result.ret == code
    assert service.read_text() == "\n\n".join(["## pytest-overfit: no run", *notes]) + "\n\n"
    red = [line for line in result.outlines if line.startswith("::error")]
    assert red == ([f"::error title=overfit%3A nothing was run::{'%0A'.join(notes)}"] if code else [])
    for note in notes:
        assert translated(note, "zh") != note


def test_with_a_config_and_xdist(pytester: pytest.Pytester, tiny: TinyConfig, service: Path) -> None:
    """Every item of the config is left out."""
    pytest.importorskip("xdist")
    tiny()
    result = pytester.runpytest_subprocess("--overfit-config", "tiny.yaml", "-k", "nothing", "--overfit-strict", "-n1")
    assert result.ret == 1
    assert service.read_text().startswith("## pytest-overfit: no run\n\nNo overfit run was made in this session")
    assert "It fails for that: --overfit-strict." in service.read_text()


def test_the_pages_of_an_earlier_session_do_not_stay(pytester: pytest.Pytester) -> None:
    """A report folder that is used again says that nothing ran, and how many records it has of others."""
    pytester.makepyfile(
        test_it="""
        import torch

        def test_learns(overfit):
            data = torch.ones(1, 2), torch.ones(1, 1)
            overfit(torch.nn.Linear(2, 1), data, torch.nn.functional.mse_loss, lr=0.1)
        """
    )
    folder = ("--overfit-report", "report")
    assert pytester.runpytest_inprocess(*folder).ret == 0
    index = pytester.path / "report" / "index.html"
    assert "test_it.py::" in index.read_text().replace("<wbr>", "")
    assert "Not shown" not in index.read_text()
    pytester.runpytest_inprocess(*folder, "-k", "nothing")
    told = "Not shown: 1 record of other sessions, in runs/."
    for text in (index.read_text(), (pytester.path / "report" / "summary.md").read_text()):
        assert told in text
        assert "No overfit run was made in this session: 1 test was deselected." in text
        assert "test_it.py::" not in text
    pytester.makepyfile(test_other=(pytester.path / "test_it.py").read_text())
    assert pytester.runpytest_inprocess(*folder, "test_other.py").ret == 0
    assert told in index.read_text()
    assert index.read_text().count("data-run=") == 1  # each run of a test takes the place of the one before
    assert translated(told, "zh").startswith("未显示")


def test_a_job_of_other_tests_has_no_page_of_ours(pytester: pytest.Pytester, service: Path) -> None:
    """The plugin is merely installed, or looks: nobody asked for a run."""
    pytester.makepyfile(OTHER)
    assert pytester.runpytest_inprocess().ret == 0
    pytester.runpytest_inprocess("--overfit-strict", "--collect-only")
    assert not service.exists()


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--overfit-config", "absent.yaml"), "absent.yaml"),
        (("--overfit-strct",), "--overfit-strct"),
        (("-o", "overfit_lang=xx"), "overfit_lang"),
        (("-o", "overfit_strct=1"), "overfit_strct"),
        (("tests/absent.py",), "It has failed for another reason"),
    ],
    ids=["a file", "an option", "a value of the ini file", "a key of the ini file", "a path of tests"],
)
def test_a_green_report_is_not_left_for_a_session_that_was_refused(
    pytester: pytest.Pytester, args: tuple[str, ...], why: str
) -> None:
    """Its summary and its first page say that nothing was run, and why; its records stay."""
    pytester.makepyfile(
        """
        import torch

        def test_learns(overfit):
            overfit(torch.nn.Linear(2, 1), (torch.randn(3, 2), torch.zeros(3, 1)), torch.nn.functional.mse_loss, lr=0.1)
        """
    )
    report = pytester.path / "report"
    assert pytester.runpytest_subprocess("--overfit-report=report").ret == pytest.ExitCode.OK
    assert "1 run passed" in (report / "summary.md").read_text()
    [record] = report.glob("runs/*/record.json")
    before = record.read_bytes()
    pytester.runpytest_subprocess("--overfit-report=report", "--collect-only", *args)  # no session of a report's
    assert "1 run passed" in (report / "summary.md").read_text()
    result = pytester.runpytest_subprocess("--overfit-report=report", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    for form in ((report / "summary.md").read_text(), (report / "index.html").read_text()):
        assert NONE in form
        assert why in form
        assert "1 run passed" not in form
    assert record.read_bytes() == before
