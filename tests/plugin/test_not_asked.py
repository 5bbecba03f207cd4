"""A mistake of ours in a session: the test stands, the row is skipped, the note asks for a report, strict is red."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import TinyConfig

BROKEN = """
    import pytest
    from pytest_overfit.diagnose import rank
    from pytest_overfit.diagnose.family import Family

    def broken(evidence):
        raise IndexError("tuple index out of range")

    @pytest.fixture(autouse=True)
    def a_mistake_of_ours(monkeypatch):
        monkeypatch.setattr(rank, "FAMILIES", (*rank.FAMILIES, Family("data", rules=(broken,))))
"""
LEARNS = """
    import torch
    from torch import nn

    def test_learns(overfit):
        batch = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
        model = lambda: nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))
        overfit(model, batch, nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), device="cpu")
"""
SAID = "not asked: the rule conftest.broken: IndexError: tuple index out of range*please report it"


@pytest.fixture(autouse=True)
def as_a_user_has_it(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    """Without the switch of our own tests, and with a rule of ours that breaks."""
    monkeypatch.setenv("PYTEST_OVERFIT_RAISE", "0")
    pytester.makeconftest(BROKEN)


def test_a_call_passes_with_a_note(pytester: pytest.Pytester) -> None:
    """The verdict of the criteria stands."""
    pytester.makepyfile(LEARNS)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"note: {SAID}"])


def test_a_strict_call_fails(pytester: pytest.Pytester) -> None:
    """Whatever leaves something unjudged."""
    pytester.makepyfile(LEARNS)
    result = pytester.runpytest_inprocess("--overfit-strict")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{SAID}"])


def test_the_item_of_a_config_is_skipped(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """One row, one reason, and no failure."""
    tiny()
    result = pytester.runpytest_inprocess("--overfit-config", "tiny.yaml", "-rs")
    result.assert_outcomes(passed=14, skipped=1)
    result.stdout.fnmatch_lines(["skipped  defects  *not asked: the rule conftest.broken*"])
    assert result.ret == pytest.ExitCode.OK


def test_a_strict_config_fails_in_one_item(pytester: pytest.Pytester, tiny: TinyConfig) -> None:
    """The row of defects, and no other."""
    tiny()
    result = pytester.runpytest_inprocess(
        "--overfit-config", "tiny.yaml", "--overfit-strict", "--overfit-device", "cpu"
    )
    result.assert_outcomes(passed=14, failed=1)
    result.stdout.fnmatch_lines([f"*{SAID}*"])
