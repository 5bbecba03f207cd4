"""The first failing test of a run shows the batch, the loss terms and the gradients."""

from __future__ import annotations

import pytest

from pytest_overfit.text.translations import words
from tests.plugin.conftest import TinyConfig
from tests.support.sessions import ITEMS, reports_of

SHORT = "--overfit-set=overfit.budget.max_steps=40"
TESTS = """
import pytest
import torch

@pytest.fixture
def run(overfit):
    def run(max_steps):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
        batch = torch.randn(8, 4), torch.randn(8, 1)
        adam = lambda parameters: torch.optim.Adam(parameters, lr=0.02)
        overfit(net, batch, torch.nn.functional.mse_loss, optimizer=adam, max_steps=max_steps, diagnose_seconds=0.5)
    return run

def test_misses(run):
    run(5)

def test_learns(run):
    run(300)

def test_gate(run):
    with pytest.raises(AssertionError):
        run(5)

def test_other(run):
    with pytest.raises(AssertionError):
        run(5)
    run(4)
"""

TITLE = words("en")["numbers_title"]


def shown_by(result: pytest.RunResult) -> dict[str, str]:
    """Test name -> the section that it has."""
    return {
        name: text for name, report in reports_of(result).items() for title, text in report.sections if title == TITLE
    }


def test_the_first_failing_item_of_a_config_shows_them(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """It alone; the text of the failure itself stays on one screen, and the section under it too."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", SHORT)
    failed = [name for name in ITEMS if reports_of(result)[name].failed]
    assert len(failed) > 1
    sections = shown_by(result)
    assert [*sections] == failed[:1]
    assert len(sections[failed[0]].splitlines()) <= 30
    assert len(reports_of(result)[failed[0]].longreprtext.splitlines()) <= 25
    result.stdout.fnmatch_lines(
        [
            f"* {failed[0]} *",
            f"*- {TITLE} -*",
            "batch * shape * dtype * min * max * mean*",
            "  images * 1x2x3x* float32 *",
            "valid depth: frame 0 * %*",
            "losses * first * best * at step * last * share*",
            "  loss_camera * %",
            "gradients: largest norm of each of *",
            f"* {failed[1]} *",
        ]
    )
    assert result.stdout.str().count("valid depth: ") == 1


def test_the_summary_shows_them_when_asked(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """With -v, of a run that passes too."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-v", "-k", "finite")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*- overfit tiny.yaml -*", "* of 200 steps in *", "valid depth: *", "gradients: *"])


def test_a_test_shows_those_of_the_run_that_failed_it(pytester: pytest.Pytester) -> None:
    """Not of a run that learned, nor of a miss that the test expects."""
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=2, passed=2)
    sections = shown_by(result)
    assert [*sections] == ["test_misses", "test_other"]
    assert any(
        line.split()[0] == "objective" and line.split()[3] == "5" for line in sections["test_misses"].splitlines()
    )
    assert any(
        line.split()[0] == "objective" and line.split()[3] == "4" for line in sections["test_other"].splitlines()
    )


def test_workers_send_them(pytester: pytest.Pytester) -> None:
    """Under pytest-xdist the controller shows what a worker has seen."""
    pytest.importorskip("xdist")
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-n", "1", "-k", "misses")
    result.stdout.fnmatch_lines(
        [f"*- {TITLE} -*", "batch * shape *", "gradients: largest norm of each of 4 parameters"]
    )
