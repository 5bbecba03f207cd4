"""Ctrl-C in the middle of a run: partial evidence, and no success."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_overfit.report.record.folder import read_report
from pytest_overfit.run.make_record import READ_EVERY
from tests.plugin.conftest import TinyConfig
from tests.support.sessions import HANGS, read_scalars, start_pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")


@contextlib.contextmanager
def endless(pytester: pytest.Pytester, *args: str, term: str = "camera") -> Iterator[subprocess.Popen[str]]:
    """A session that trains for ever, as soon as it has written a hundred steps; it does not outlive the block."""
    # With the recipe's own learning rate the confidence overflows within seconds, which ends a run on a slow machine.
    settings = (f"overfit.criteria.{term}=1e-12", "optim.optimizer.lr=1e-5", "overfit.budget.max_steps=1000000")
    session = start_pytest(*args, *(f"--overfit-set={text}" for text in settings), folder=pytester.path)
    try:
        deadline = time.monotonic() + HANGS
        while not has_scalars(pytester.path / "overfit_logs"):
            assert session.poll() is None, session.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield session
    finally:
        session.kill()
        session.communicate()


def has_scalars(log_dir: Path) -> bool:
    """Whether a run below a log folder has written a hundred steps."""
    return any(len(read_scalars(folder).get("train/loss_objective", ())) > 100 for folder in log_dir.glob("*/*"))


def test_ctrl_c_leaves_a_partial_run(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """Exit code 2; the summary has the run although its item never got a report; TensorBoard's file is readable."""
    tiny()
    with endless(pytester, "--overfit-config", "tiny.yaml") as session:
        session.send_signal(signal.SIGINT)
        output, _ = session.communicate(timeout=HANGS)
    assert session.returncode == pytest.ExitCode.INTERRUPTED
    pytest.LineMatcher(output.splitlines()).fnmatch_lines(
        [
            "*overfit tiny.yaml*",
            "ok*pair*",
            "skipped*: not judged: interrupted at step *",
            "* of 1000000 steps in * INTERRUPTED; cpu*",
            "tensorboard --logdir *overfit_logs/tiny",
            "*KeyboardInterrupt*",
            "*3 passed*",
        ]
    )
    assert not re.search(r"(?m)^FAILED ", output)  # nothing that was cut off has failed
    scalars = read_scalars(next((pytester.path / "overfit_logs").glob("*/*")))
    steps = [step for step, _ in scalars["train/loss_objective"]]
    assert steps == list(range(1, len(steps) + 1))
    told = re.search(r"(\d+) of 1000000 steps", output)
    assert told is not None
    assert 0 <= int(told[1]) - len(steps) <= READ_EVERY["cpu"]  # the signal may come while these are being written


def test_a_second_ctrl_c_ends_it_too(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """In the middle of writing the verdict: the session ends as interrupted, the steps until then can be read."""
    tiny()
    pytester.makeconftest(
        """
        import os, pathlib, signal
        from pytest_overfit.report.board.tensorboard import TensorBoardLog

        def on_result(self, result):
            pathlib.Path("second").touch()
            os.kill(os.getpid(), signal.SIGINT)
            written(self, result)

        written, TensorBoardLog.on_result = TensorBoardLog.on_result, on_result
        """
    )
    with endless(pytester, "--overfit-config", "tiny.yaml") as session:
        session.send_signal(signal.SIGINT)
        output, _ = session.communicate(timeout=HANGS)
    assert (pytester.path / "second").exists()
    assert session.returncode in (pytest.ExitCode.INTERRUPTED, -signal.SIGINT), output
    assert has_scalars(pytester.path / "overfit_logs")


def test_ctrl_c_in_a_marked_test_shows_its_run(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The same for an ordinary test that trains."""
    tiny()
    pytester.makepyfile(
        test_marked="""
        import pytest

        @pytest.mark.overfit(config="tiny.yaml")
        def test_learns(overfit_result): pass
        """
    )
    with endless(pytester) as session:
        session.send_signal(signal.SIGINT)
        output, _ = session.communicate(timeout=HANGS)
    assert session.returncode == pytest.ExitCode.INTERRUPTED
    pytest.LineMatcher(output.splitlines()).fnmatch_lines(
        ["*overfit test_marked.py::test_learns*", "*INTERRUPTED; cpu*"]
    )


def test_ctrl_c_in_a_call_shows_its_run(pytester: pytest.Pytester) -> None:
    """Without a config too, and the model is as it was."""
    pytester.makepyfile(
        test_call="""
        import torch

        def test_learns(overfit):
            model = torch.nn.Linear(4, 1)
            before = model.weight.detach().clone()
            try:
                overfit(model, (torch.randn(8, 4), torch.randn(8, 1)), torch.nn.functional.mse_loss)
            finally:
                assert torch.equal(before, model.weight)
                print("RESTORED")
        """
    )
    with endless(pytester, "-s", "--overfit-log-dir", "overfit_logs", term="objective") as session:
        session.send_signal(signal.SIGINT)
        output, _ = session.communicate(timeout=HANGS)
    assert session.returncode == pytest.ExitCode.INTERRUPTED
    pytest.LineMatcher(output.splitlines()).fnmatch_lines(
        [
            "*RESTORED*",
            "*overfit test_call.py::test_learns*",
            "skipped*objective*not judged: interrupted at step *",
            "* of 1000000 steps in * INTERRUPTED*",
        ]
    )


@pytest.mark.parametrize(("option", "fewest"), [("-v", 1), ("--full-trace", 5)])
def test_an_interruption_is_told_in_one_frame(pytester: pytest.Pytester, option: str, fewest: int) -> None:
    """Of every other frame pytest would write down the arguments, tensors too, and show none of them."""
    pytester.makeconftest(
        """
        import pytest
        kept = []

        @pytest.hookimpl(trylast=True)
        def pytest_keyboard_interrupt(excinfo):
            kept.append(len(excinfo.traceback))

        def pytest_unconfigure():
            print("frames", kept)
        """
    )
    pytester.makepyfile("def test_it():\n    raise KeyboardInterrupt")
    result = pytester.runpytest_subprocess(option)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    frames = next(line for line in result.outlines if line.startswith("frames"))
    count = int(re.findall(r"\d+", frames)[0])
    assert count == fewest if fewest == 1 else count > fewest
    result.stdout.fnmatch_lines(["*.py:2: KeyboardInterrupt"])


def test_nothing_is_imported_to_end_an_interrupted_run(pytester: pytest.Pytester) -> None:
    """What reads and writes records stays away where nothing is recorded."""
    pytester.makepyfile(
        """
        import os
        import signal
        import sys
        import torch
        from torch import nn


        def test_learns(overfit):
            def loss(model, batch):
                loss.calls += 1
                if loss.calls == 50:
                    os.kill(os.getpid(), signal.SIGINT)
                return (model(batch) - 1).square().mean()

            loss.calls = 0
            try:
                overfit(nn.Linear(2, 2), torch.randn(3, 2), loss, lr=1e-9)
            finally:
                print("imported:", "pytest_overfit.report.record.codec" in sys.modules)
        """
    )
    result = pytester.runpytest_subprocess("-s", "-p", "no:cacheprovider")
    assert any(line.endswith("imported: False") for line in result.outlines), result.outlines


def test_ctrl_c_in_the_diagnosis_tells_what_is_known(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was judged: what it missed and why is in terminal (a quiet one too), summary and annotation."""
    pytester.makepyfile(
        """
        import pytest, torch
        from torch import nn

        class Net(nn.Module):
            calls = 0

            def __init__(self):
                super().__init__()
                self.a = nn.Linear(4, 1)

            def forward(self, x):
                Net.calls += 1
                if Net.calls == 75:
                    raise KeyboardInterrupt
                return self.a(x)

        @pytest.mark.overfit(objective=0.01, max_steps=40)
        def test_it(overfit):
            overfit(Net(), (torch.randn(8, 4), torch.randn(8, 1)), nn.MSELoss(), lr=1e-7)
        """
    )
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "step.md"))
    result = pytester.runpytest_inprocess("-q", "--overfit-report=report", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    (document,) = read_report(pytester.path / "report")
    assert (document.state, document.cut) == ("interrupted", False)
    assert document.first_line.startswith("objective ")
    result.stdout.fnmatch_lines(["FAILED   objective*", "why: lr-low*", "  change: *"])
    (command,) = [line for line in result.outlines if line.startswith("::error ")]
    assert document.first_line in command
    summary = (pytester.path / "step.md").read_text(encoding="utf-8")
    assert "## pytest-overfit: 1 of 1 run failed" in summary
    assert f"**{document.first_line}**" in summary.replace("\\", "")
