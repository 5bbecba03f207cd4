"""What failed leaves a report without being asked: of the last session that failed, and of nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from pytest_overfit.plugin.kept_report import MOST
from pytest_overfit.report import publish
from pytest_overfit.report.record.folder import read_report
from tests.support.sessions import HANGS, WITHOUT_THEM, keep_modules, own_plugins_only

TEST = """
import pytest, torch
from torch.nn import functional as F

@pytest.mark.parametrize("number", range({runs}))
def test_it(overfit, number):
    overfit(torch.nn.Linear(3, 1), (torch.randn(8, 3), torch.randn(8, 1)), F.mse_loss, max_steps=2, diagnose=False)
"""
KEEP = ("-q", "-o", "overfit_keep=true")


@pytest.fixture(autouse=True)
def sessions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions inside the test keep torch, and run in order."""
    keep_modules(monkeypatch)
    own_plugins_only(request, monkeypatch)


@pytest.fixture
def last(pytester: pytest.Pytester) -> Path:
    """Where the report is."""
    pytester.makepyfile(TEST.format(runs=1))
    return pytester.path / ".overfit" / "last"


def test_a_failure_leaves_a_report_and_its_path(pytester: pytest.Pytester, last: Path) -> None:
    """As a link; git sees nothing of it."""
    result = pytester.runpytest_inprocess(*KEEP)
    (line,) = [line for line in result.outlines if line.startswith("report: ")]
    assert Path(line.removeprefix("report: file://")).is_file()
    (document,) = read_report(last)
    assert document.places == {"": "test_a_failure_leaves_a_report_and_its_path.py:6"}
    assert (last / ".gitignore").read_text() == "*\n"


def test_without_what_pages_need_the_summary_is_kept(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, last: Path
) -> None:
    """It is there: what brings pages is a note, and no report of something that went wrong."""
    monkeypatch.setattr(publish, "PAGES_NEED", ("bokeh_that_is_absent",))
    result = pytester.runpytest_inprocess(*KEEP)
    (line,) = [line for line in result.outlines if line.startswith("report: ")]
    assert Path(line.removeprefix("report: file://")) == last / "summary.md"
    (note,) = [line for line in result.outlines if line.startswith("note: pages need")]
    assert note.endswith('which is not installed: pip install "pytest-overfit[pages]"')
    assert "not written" not in result.stdout.str()


def test_the_session_before_is_replaced(pytester: pytest.Pytester, last: Path) -> None:
    """By the next one that fails; one that passes leaves it."""
    pytester.runpytest_inprocess(*KEEP)
    (pytester.path / "test_the_session_before_is_replaced.py").unlink()
    pytester.makepyfile(test_other=TEST.format(runs=1))
    pytester.runpytest_inprocess(*KEEP)
    assert [document.title for document in read_report(last)] == ["test_other.py::test_it[0]"]


def test_workers_keep_one_report(pytester: pytest.Pytester, last: Path) -> None:
    """Of pytest-xdist: the runs of both, and one line."""
    pytester.makepyfile(TEST.format(runs=4))
    result = pytester.runpytest_subprocess(*KEEP, "-n2", "-p", "xdist")
    (line,) = [line for line in result.outlines if line.startswith("report: ")]
    assert Path(line.removeprefix("report: file://")).parent == last
    assert len(read_report(last)) == 4
    assert {each.name for each in last.iterdir() if each.is_dir()} <= {"runs", "assets"}


def test_ctrl_c_keeps_what_has_failed_until_then(pytester: pytest.Pytester, last: Path) -> None:
    """The session ends with its report."""
    body = TEST.format(runs=3).replace("    overfit(", "    if number: raise KeyboardInterrupt\n    overfit(")
    pytester.makepyfile(body)
    result = pytester.runpytest_subprocess(*KEEP, "-p", "no:randomly", "-k", "not 2")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert [document.title.rpartition("[")[2] for document in read_report(last)] == ["0]"]
    assert any(line.startswith("report: ") for line in result.outlines)
    assert (last / "index.html").is_file()


def test_of_many_failures_some_are_kept(pytester: pytest.Pytester, last: Path) -> None:
    """Nobody opens two hundred."""
    pytester.makepyfile(TEST.format(runs=MOST + 2))
    pytester.runpytest_inprocess(*KEEP)
    assert len(read_report(last)) == MOST


@pytest.mark.parametrize("args", [("-o", "overfit_keep=false"), ("-o", "overfit_keep=true", "--overfit-report=r")])
def test_nothing_is_kept_where_it_is_off_or_a_report_is_asked_for(
    pytester: pytest.Pytester, last: Path, args: tuple[str, ...]
) -> None:
    """There is one report at most."""
    pytester.runpytest_inprocess(*args)
    assert not last.exists()


def test_an_expected_miss_is_no_failure(pytester: pytest.Pytester, last: Path) -> None:
    """Its test passes."""
    body = TEST.format(runs=1).replace("    overfit(", "    with pytest.raises(AssertionError): overfit(")
    pytester.makepyfile(body)
    assert pytester.runpytest_inprocess(*KEEP).ret == pytest.ExitCode.OK
    assert not last.exists()


@pytest.mark.skipif(os.name == "nt", reason="a file in the place of the folder is told otherwise")
def test_a_folder_that_cannot_be_written_is_a_note(pytester: pytest.Pytester, last: Path) -> None:
    """A file is in its place."""
    last.parent.write_text("")
    result = pytester.runpytest_inprocess(*KEEP)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["note: no report is kept of what failed: *.overfit/last: *"])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="nobody may write below /proc")
def test_a_read_only_folder_is_a_note(pytester: pytest.Pytester, last: Path) -> None:
    """And no error: the verdict stands."""
    result = pytester.runpytest_inprocess(*KEEP, "-o", "overfit_storage=/proc/none")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["note: no report is kept of what failed: *"])
    assert not last.exists()


@pytest.mark.skipif(os.name == "nt", reason="limits of a process are those of POSIX")
def test_a_full_disk_costs_the_report_alone(pytester: pytest.Pytester, last: Path) -> None:
    """The verdict stands, what was not written is said, and no path leads to a page that is not there."""
    import resource

    most = 70_000  # bytes of a file: enough for a record, and not for the scripts of a page
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most))
    arguments = (*WITHOUT_THEM.split(), *KEEP, "-p", "no:cacheprovider")
    result = subprocess.run(
        (sys.executable, "-m", "pytest", *arguments),
        cwd=pytester.path, capture_output=True, text=True, timeout=HANGS, preexec_fn=limit,
    )  # fmt: skip
    assert result.returncode == 1, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert "note: not written: the report of what failed: File too large" in lines
    assert not any(line.startswith("report: ") for line in lines)
    assert any(line.startswith("FAILED ") for line in lines)
    assert not (last / "index.html").exists()
