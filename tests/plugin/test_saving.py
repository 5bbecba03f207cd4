"""A session that was to save, or to compare, and could not is not green."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pytest_overfit.report.record.saved

TEST = """
import pytest
import torch

def test_learns(overfit):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.02)
    overfit(net, (torch.randn(8, 4), torch.randn(8, 1)), torch.nn.functional.mse_loss, optimizer=adam, diagnose=False)

def test_own():
    open("ran", "w").close()

def test_miss(overfit):
    with pytest.raises(AssertionError):
        overfit(torch.nn.Linear(4, 1), (torch.randn(8, 4), torch.randn(8, 1)), torch.nn.functional.mse_loss,
                objective=1e-30, max_steps=2, diagnose=False)
"""
LIMIT = ("--overfit-compare=main", "--overfit-compare-fail=steps:1.5x")


def session(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=TEST)
    return pytester.runpytest_inprocess(*args)


def test_a_renamed_test_is_no_comparison(pytester: pytest.Pytester) -> None:
    """It fails, and the nearest that was saved is named; in a config its item does."""
    session(pytester, "--overfit-save=main", "-k", "learns").assert_outcomes(passed=1, deselected=2)
    pytester.makepyfile(test_it=TEST.replace("test_learns", "test_learned"))
    result = pytester.runpytest_inprocess("-k", "learned", *LIMIT)
    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(
        [
            "*regression: main has no run of this test; the nearest is test_it.py::test_learns, allowed a run that *",
            "*next: save it: --overfit-save main; a test that was renamed or moved is another test",
        ]
    )


@pytest.mark.parametrize("kind", ["newer", "broken", "folder"])
def test_what_cannot_be_saved_is_known_before(pytester: pytest.Pytester, kind: str) -> None:
    """Exit code 4, and nothing ran."""
    storage = pytester.path / ".overfit"
    if kind == "folder":
        storage.write_text("a file where the folder should be", encoding="utf-8")
    else:
        storage.mkdir()
        newer = {"name": "main", "saved": "2030", "version": 2, "runs": []}
        (storage / "main.json").write_text(json.dumps(newer) if kind == "newer" else "{", encoding="utf-8")
    result = session(pytester, "--overfit-save=main")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*.overfit*"])
    assert not (pytester.path / "ran").exists()


@pytest.mark.parametrize(("chosen", "why"), [("own", "no run was finished in this session"), ("own or learns", "")])
def test_a_session_that_saved_nothing_fails(pytester: pytest.Pytester, chosen: str, why: str) -> None:
    """Also where runs of an earlier session are still there."""
    session(pytester, "--overfit-save=main", "-k", "learns")
    result = session(pytester, "--overfit-save=main", "-k", chosen)
    assert result.ret == (pytest.ExitCode.TESTS_FAILED if why else pytest.ExitCode.OK)
    if why:
        result.stdout.fnmatch_lines([f"--overfit-save main: nothing was saved: {why}", "  next: look at what failed*"])


def test_a_full_disk_fails_the_session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason; the report is written all the same."""

    def full(path: Path, text: str) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pytest_overfit.report.record.saved, "write_text", full)
    result = session(pytester, "--overfit-save=main", "--overfit-report=report", "-k", "learns")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["report: *", "--overfit-save main: nothing was saved: No space left on device", "  next: make room, *"]
    )


def test_a_session_that_only_looks_saves_nothing(pytester: pytest.Pytester) -> None:
    """Nothing was to be saved."""
    assert session(pytester, "--overfit-save=main", "--collect-only").ret == pytest.ExitCode.OK


def test_a_run_that_misses_is_saved_too(pytester: pytest.Pytester) -> None:
    """It came to its end."""
    assert session(pytester, "--overfit-save=main", "-k", "miss").ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    "change",
    [('"objective": ', '"objective": 1e400, "was": '), ('"steps_to_pass": ', '"steps_to_pass": 1' + "0" * 4000)],
)
def test_a_baseline_that_lets_everything_pass_is_refused(pytester: pytest.Pytester, change: tuple[str, str]) -> None:
    """Exit code 4, and nothing ran: a loss of infinity is not what a run was saved with."""
    session(pytester, "--overfit-save=main", "-k", "learns").assert_outcomes(passed=1, deselected=2)
    path = pytester.path / ".overfit" / "main.json"
    text = path.read_text()
    assert '"objective": ' in text
    path.write_text(text.replace(*change, 1))
    result = pytester.runpytest_inprocess(*LIMIT)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*main.json: *", "*allowed: what --overfit-save NAME wrote"])
    assert not (pytester.path / "ran").exists()


def test_the_settings_that_changed_are_told_first(pytester: pytest.Pytester) -> None:
    """On the page and in the summary, beside the numbers; none where all are as they were."""
    session(pytester, "--overfit-save=main", "-k", "learns").assert_outcomes(passed=1, deselected=2)
    told = {}
    for name, settings in {"same": "", "other": ", max_steps=777"}.items():
        pytester.makepyfile(test_it=TEST.replace("optimizer=adam", f"optimizer=adam{settings}"))
        report = pytester.runpytest_inprocess("-k", "learns", "--overfit-compare=main", f"--overfit-report={name}")
        report.assert_outcomes(passed=1, deselected=2)
        (page,) = (pytester.path / name / "runs").glob("*/index.html")
        summary = pytester.path / name / "summary.md"
        told[name] = page.read_text(encoding="utf-8") + summary.read_text(encoding="utf-8")
    assert "Settings that changed" not in told["same"]
    assert "Changed since then" not in told["same"]
    assert "<p>Settings that changed: <b>max_steps</b> 1000 → 777.</p>" in told["other"]
    assert "Changed since then: `max_steps` 1000 → 777" in told["other"]
