"""Several seeds as one verdict."""

from __future__ import annotations

from dataclasses import replace

from pytest_overfit.judge.finding import ECHO, Finding
from pytest_overfit.judge.stopped import interrupted
from pytest_overfit.judge.verdict import combine
from pytest_overfit.result import OverfitResult, of_seeds
from tests.support.records import record


def test_an_echo_of_one_seed_says_less_than_the_others() -> None:
    """Where enough seeds pass, nothing is left open; where not, it did not hold."""
    echo = Finding("objective", False, f"{ECHO}finite (at step 1)", "< 0.01", judged=False)
    held = Finding("objective", True, "0.001", "< 0.01")
    missed = replace(held, passed=False)
    assert combine([(0, [echo]), (1, [held])], needed=1)[0].passed
    assert combine([(0, [echo]), (1, [held]), (2, [missed])], needed=2)[0].missed
    assert combine([(0, [echo]), (1, [echo])])[0].echo_of == "finite"


def test_a_seed_that_was_interrupted_leaves_the_whole_open() -> None:
    """Whatever a seed before it came to: nothing is missed, and nothing has passed."""
    missed = Finding("objective", False, "0.3", "< 0.01", margin=0.03)
    first, last = record(stop="max_steps"), record(stop="interrupted", steps=3)
    cut = OverfitResult(last, interrupted(last, [missed, Finding("finite", True, "all", "all")]))
    result = of_seeds([OverfitResult(first, (missed,)), cut], needed=2)
    assert result.interrupted
    assert not result.passed
    assert [finding.missed for finding in result.findings] == [False, False]
    assert len(result.runs) == 2
