"""Two processes that write into one folder at the same time: nothing is lost, and nothing is half written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_overfit.report.record.folder import read_report
from pytest_overfit.report.record.session_ids import is_running, session_id
from tests.support.sessions import HANGS, WITHOUT_THEM
from tests.support.warm import warm_python

TEST = """
import os, pathlib, time
import pytest, torch

def wait_for_both():
    here = pathlib.Path(__file__).parent
    (here / os.environ["NAME"]).touch()
    while not ((here / "first").exists() and (here / "second").exists()):
        time.sleep(0.05)

@pytest.mark.parametrize("number", range(2))
def test_it(overfit, number):
    if os.environ["NAME"] == "second" or number:
        wait_for_both()
    overfit(torch.nn.Linear(3, 1), (torch.randn(8, 3), torch.randn(8, 1)), torch.nn.functional.mse_loss, max_steps=2,
            diagnose=False)
"""


def start(folder: Path, name: str, *more: str) -> subprocess.Popen[str]:
    without = WITHOUT_THEM.replace("overfit_keep=false", "overfit_keep=true").split()
    arguments = (*without, "--overfit-log-dir=logs", "-p", "no:cacheprovider", *more)
    environment = {**os.environ, "NAME": name, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        (*warm_python(), "-m", "pytest", "-q", *arguments),
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


ASKED = ("--overfit-report=report",)
KEPT = Path(".overfit", "last")


@pytest.mark.parametrize(
    ("more", "written"), [(ASKED, Path("report")), ((), KEPT), (("-n", "2"), KEPT)], ids=["report", "kept", "workers"]
)
def test_both_are_whole(tmp_path: Path, more: tuple[str, ...], written: Path) -> None:
    """The report that is asked for or kept, and the files of TensorBoard, of one test in both."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "test_both.py").write_text(TEST, encoding="utf-8")
    both = [start(tmp_path, name, *more) for name in ("first", "second")]
    told = [each.communicate(timeout=HANGS)[0] for each in both]
    assert [each.returncode for each in both] == [1, 1], told
    folder = tmp_path / written
    documents = read_report(folder)
    assert [document.title.rpartition("::")[2] for document in documents] == ["test_it[0]"] * 2 + ["test_it[1]"] * 2
    assert {document.state for document in documents} == {"finished"}
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert all(f"runs/{document.id}/index.html" in page for document in documents)
    assert all((folder / "runs" / document.id / "record.md").is_file() for document in documents)
    boards = list((tmp_path / "logs").glob("*/*/events.*"))
    assert len(boards) == 4
    assert not any("not written" in each for each in told)


def test_a_session_that_is_over_is_written_over(tmp_path: Path) -> None:
    """One record per test, whatever sessions there were."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "test_both.py").write_text(TEST, encoding="utf-8")
    for name in ("first", "second"):
        (tmp_path / name).touch()
    for more in (ASKED, (), ASKED, ()):
        start(tmp_path, "first", *more).communicate(timeout=HANGS)
    assert len(list((tmp_path / "report" / "runs").iterdir())) == 2
    assert len(list((tmp_path / KEPT / "runs").iterdir())) == 2


def test_whether_a_session_goes_on() -> None:
    """That of a process that lives; not one of this process, nor what is no name of a session."""
    mine, parents = session_id(os.getpid()), session_id(os.getppid())
    assert is_running(parents, mine)
    assert not is_running(session_id(os.getpid()), mine)
    assert not any(
        is_running(each, mine) for each in ("", "a/b/c", "elsewhere/1/x", f"{mine.partition('/')[0]}/{2**70}/x")
    )
