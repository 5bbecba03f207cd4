"""What a run is told, in a word."""

from __future__ import annotations

from pytest_overfit import OverfitResult
from tests.support.chinese import assert_chinese


def told(result: OverfitResult) -> str:
    """The id of its first cause, which is told in Chinese too; empty where the run passed, which has none."""
    assert result.passed == (not result.causes)
    for cause in result.causes[:1]:
        assert_chinese(cause)
    return result.causes[0].id if result.causes else ""
