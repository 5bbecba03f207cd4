"""The rules about labels of tokens, on plain numbers."""

from __future__ import annotations

import pytest

from pytest_overfit.judge.agreement import judge_generates
from pytest_overfit.judge.criteria import judge
from pytest_overfit.run.record import Generated
from pytest_overfit.settings.criteria import Criteria
from tests.support.records import record


@pytest.mark.parametrize(
    ("generated", "passed", "observed"),
    [
        (Generated(9, 9, 1), True, "9 of 9 tokens right"),
        (Generated(8, 9, 1, "sequence 0, token 3: 4 instead of 5"), False, "8 of 9 tokens right"),
        (Generated(ahead=(0.0, 1.0, 0.0)), False, "nothing was generated"),
        (None, False, "nothing was generated"),
    ],
)
def test_all_tokens_have_to_be_right(generated: Generated | None, passed: bool, observed: str) -> None:
    """One wrong token is a failure, and so is nothing at all."""
    finding = judge_generates(record(generated=generated))
    assert (finding.passed, finding.observed) == (passed, observed)


def test_the_first_wrong_token_is_where() -> None:
    """With what to look at."""
    found = judge_generates(record(generated=Generated(8, 9, 4, "sequence 0, token 3: 4 instead of 5")))
    assert found.where == "sequence 0, token 3: 4 instead of 5"
    assert found.allowed.endswith("greedily from the first 4")
    assert "labels shifted twice" in str(found.hint)


def test_it_is_judged_where_it_is_asked_for() -> None:
    """Off by default."""
    names = [[f.name for f in judge(record(), Criteria(generates=on))] for on in (False, True)]
    assert ["generates" in each for each in names] == [False, True]
