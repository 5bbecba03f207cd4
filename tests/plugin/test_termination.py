"""SIGTERM in the middle of a run, as a CI service or a time limit sends it: the run and its end are written down."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from pytest_overfit.report.markdown.experiment import experiment_record
from pytest_overfit.report.page.sentences import sentence
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.folder import read_report
from pytest_overfit.text.translations import translated

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")
TEST = """
import os
import signal
import time
import torch
from torch import nn


def loss(model, batch):
    loss.calls += 1
    if loss.calls == 50:
        {kill}
    return (model(batch) - 1).square().mean()


def test_learns(overfit):
    loss.calls = 0
    overfit(nn.Linear(2, 2), torch.randn(3, 2), loss, lr=1e-9, max_steps=100_000)


def test_never_begins(overfit):
    raise AssertionError
"""
OTHER = """    loss.calls, loss.name, loss.first = 0, 'b', False
    overfit(nn.Linear(2, 2), torch.randn(3, 2), loss, lr=1e-9, max_steps=100_000)
"""
ITSELF = "os.kill(os.getpid(), signal.SIGTERM)"
CONTROLLER = "os.kill(os.getppid(), signal.SIGTERM)"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> Path:
    """The page of a job of GitHub's."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    return pytester.path / "summary.md"


def ended(pytester: pytest.Pytester, kill: str, *args: str) -> tuple[pytest.RunResult, Document]:
    """A session that is ended, and the record that it leaves."""
    pytester.makepyfile(TEST.format(kill=kill))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--overfit-report", "report", *args)
    [document] = read_report(pytester.path / "report")
    return result, document


@pytest.mark.parametrize("kill", [ITSELF, f"{ITSELF}; {ITSELF}"], ids=["one", "as timeout(1) sends it"])
def test_a_signal_ends_a_run_and_every_form_says_so(pytester: pytest.Pytester, service: Path, kill: str) -> None:
    """Record, page, step summary, annotation and terminal have the signal, the step and the numbers; pytest's code."""
    result, document = ended(pytester, kill)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert document.state == "interrupted"
    assert document.result is not None
    steps = document.result.record.steps
    assert 30 < steps < 60
    assert len(document.result.record.curves["objective"]) == steps
    told = f"ended by SIGTERM at step {steps} of 100000"
    assert document.error == told
    assert sentence(document) == f"Ended by SIGTERM at step {steps} of 100000: it proves nothing."
    assert told in experiment_record(document)
    assert f"**Interrupted**: {told}" in service.read_text()
    assert re.search(r"objective \d", service.read_text())
    page = (pytester.path / "report" / "runs" / document.id / "index.html").read_text()
    assert f"SIGTERM at step {steps}" in page
    cut = f"not judged: interrupted at step {steps} of 100000"
    assert not any(finding.missed for finding in document.findings)
    assert not document.result.passed
    assert document.result.finding("objective").observed == cut
    for form in (service.read_text(), page, experiment_record(document)):
        assert cut in form
        assert "next: " not in form
    assert "**failed**" not in service.read_text()
    assert "### Interrupted: " in service.read_text()
    overview = (pytester.path / "report" / "index.html").read_text()
    assert "could not memorise" not in overview
    assert "1 of 1 runs ended before there was a verdict." in overview
    assert "判定" in translated("1 of 1 runs ended before there was a verdict.", "zh")
    [annotation] = [line for line in result.outlines if line.startswith("::error")]
    assert told in annotation
    result.stdout.fnmatch_lines(["*EndedBySignal: SIGTERM*"])
    assert f"在第 {steps} 步" in translated(told, "zh")
    assert "SIGTERM" in translated(sentence(document), "zh")
    assert translated(sentence(document), "zh") != sentence(document)


@pytest.mark.parametrize("kill", [CONTROLLER, f"{CONTROLLER}; {ITSELF}"], ids=["the controller", "the group"])
def test_with_xdist(pytester: pytest.Pytester, service: Path, kill: str) -> None:
    """The controller alone gets it, or each process of its group."""
    pytest.importorskip("xdist")
    result, document = ended(pytester, kill, "-n", "1")
    assert result.ret == pytest.ExitCode.INTERRUPTED, result.outlines
    assert document.state in ("interrupted", "killed")
    assert document.result is not None
    assert document.error == f"ended by SIGTERM at step {document.result.record.steps} of 100000"
    assert document.error in service.read_text()
    assert (pytester.path / "report" / "index.html").is_file()


def test_a_signal_while_workers_are_waited_for(pytester: pytest.Pytester, service: Path) -> None:
    """The session waits no longer for workers that do not end, and writes all that it knows, with one annotation."""
    pytest.importorskip("xdist")
    pytester.makeconftest(
        """
        import os
        import signal
        import pytest

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_sessionfinish(session):
            if not hasattr(session.config, "workerinput"):
                os.kill(os.getpid(), signal.SIGTERM)
            yield
        """
    )
    stays = """while True:
            try:
                if os.path.exists("a") and os.path.exists("b") and loss.first:
                    loss.first = False
                    os.kill(os.getppid(), signal.SIGINT)
                time.sleep(0.1)
            except KeyboardInterrupt:
                pass"""
    pytester.makepyfile(
        TEST.format(kill=f"open(loss.name, 'w').close()\n        {stays}")
        .replace("    loss.calls = 0\n", "    loss.calls, loss.name, loss.first = 0, 'a', True\n")
        .replace("    raise AssertionError", OTHER)
    )
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "no:randomly", "--overfit-report=r", "-n", "2"
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED, result.outlines
    assert "Traceback" not in str(result.stderr)
    documents = read_report(pytester.path / "r")
    assert [document.state for document in documents] == ["interrupted"] * 2
    assert service.read_text().count("**Interrupted**") == 2
    assert (pytester.path / "r" / "index.html").is_file()
    [annotation] = [line for line in result.outlines if line.startswith("::error")]
    assert all(document.title in annotation.replace("%3A", ":") for document in documents)
    assert "同时被中断" in translated("  interrupted too: a.py::test_b", "zh")


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_while_the_report_is_written(pytester: pytest.Pytester, service: Path, number: str) -> None:
    """Nothing is raised into it: page, summary and annotation are there."""
    pytester.makeconftest(
        f"""
        import os, signal
        from pytest_overfit.plugin.session_records import SessionRecords

        def write(self, documents):
            os.kill(os.getpid(), signal.{number})
            written(self, documents)

        written, SessionRecords._write_report = SessionRecords._write_report, write
        """
    )
    result, _ = ended(pytester, ITSELF.replace("SIGTERM", "SIGINT"))
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "Traceback" not in str(result.stderr)
    assert "**Interrupted**" in service.read_text()
    assert (pytester.path / "report" / "index.html").is_file()
    assert len([line for line in result.outlines if line.startswith("::error")]) == 1


def test_a_second_signal_ends_the_process_at_once(pytester: pytest.Pytester) -> None:
    """While the first one is being handled, which here takes for ever."""
    pytester.makeconftest(
        """
        import os, signal, time
        from pytest_overfit.report.record.recorder import Recorder

        def end(self, *args, **known):
            time.sleep(0.6)  # of a signal so soon after the first one it is not known that it is another
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(3600)

        Recorder.end = end
        """
    )
    result, document = ended(pytester, ITSELF)
    assert result.ret == -signal.SIGTERM
    assert document.state == "running"


def test_a_worker_of_a_loader_is_ended_as_ever(pytester: pytest.Pytester) -> None:
    """A process that the user's code forks, and ends by the same signal, ends by it; the run goes on."""
    fork = """pid = os.fork()
        if pid == 0:
            time.sleep(3600)
        time.sleep(0.1)
        os.kill(pid, signal.SIGTERM)
        loss.child = os.waitpid(pid, 0)[1]
        assert os.WTERMSIG(loss.child) == signal.SIGTERM
        raise ZeroDivisionError("after the child")"""
    result, document = ended(pytester, fork, "-k", "learns")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "after the child" in str(document.error)


def test_the_signal_of_the_user_stays_the_users(pytester: pytest.Pytester) -> None:
    """Whoever handles it goes on doing so, and afterwards the default is back."""
    pytester.makepyfile(
        """
        import signal
        import pytest
        import torch

        def seen(model, batch):
            now.append(signal.getsignal(signal.SIGTERM))
            return (model(batch) - 1).square().mean()

        now = []

        def test_own(overfit):
            own = lambda number, frame: None
            signal.signal(signal.SIGTERM, own)
            with pytest.raises(AssertionError):
                overfit(torch.nn.Linear(2, 2), torch.randn(3, 2), seen, max_steps=5)
            assert set(now) == {own}
            assert signal.getsignal(signal.SIGTERM) is own
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        def test_default(overfit):
            now.clear()
            with pytest.raises(AssertionError):
                overfit(torch.nn.Linear(2, 2), torch.randn(3, 2), seen, max_steps=5)
            assert now[0] is not signal.SIG_DFL
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
