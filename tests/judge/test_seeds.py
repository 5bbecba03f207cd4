"""Several seeds as one verdict."""

from __future__ import annotations

from dataclasses import replace

from pytest_overfit.judge.finding import ECHO, Finding
from pytest_overfit.judge.verdict import combine


def test_an_echo_of_one_seed_says_less_than_the_others() -> None:
    """Where enough seeds pass, nothing is left open; where not, it did not hold."""
    echo = Finding("objective", False, f"{ECHO}finite (at step 1)", "< 0.01", judged=False)
    held = Finding("objective", True, "0.001", "< 0.01")
    missed = replace(held, passed=False)
    assert combine([(0, [echo]), (1, [held])], needed=1)[0].passed
    assert combine([(0, [echo]), (1, [held]), (2, [missed])], needed=2)[0].missed
    assert combine([(0, [echo]), (1, [echo])])[0].echo_of == "finite"
