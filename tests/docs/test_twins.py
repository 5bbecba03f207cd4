"""Every ``python`` block of docs/twins.md is a test file that does what the page says."""

from __future__ import annotations

import re

import pytest

from pytest_overfit.run.twin_record import TWINS
from tests.docs.test_snippets import PAGE, Snippet, name_of, read_page
from tests.support.sessions import keep_modules

TEXT = PAGE.with_name("twins.md").read_text()
PRELUDE, SNIPPETS = read_page(TEXT)


@pytest.fixture(autouse=True)
def sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions inside the test keep torch."""
    keep_modules(monkeypatch)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=name_of)
def test_snippet_does_what_the_page_says(pytester: pytest.Pytester, snippet: Snippet) -> None:
    """It passes, or misses the criterion of its mark."""
    pytester.makepyfile(f"{PRELUDE}\n\n{snippet.code}")
    result = pytester.runpytest_inprocess("--strict-markers", "-p", "no:randomly")
    if snippet.fails is None:
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(failed=1)
        result.stdout.re_match_lines([rf"E +{snippet.fails}: "])


def test_golden_losses_hold_and_are_missed(pytester: pytest.Pytester) -> None:
    """The commands of the page; another rate is another curve."""
    (code,) = [snippet.code for snippet in SNIPPETS if "test_golden_losses" in snippet.code]
    pytester.makepyfile(test_it=f"{PRELUDE}\n\n{code}")
    pytester.runpytest_inprocess("--overfit-save", "main").assert_outcomes(passed=1)
    compared = ("--overfit-compare", "main", "--overfit-compare-fail", "curve:1e-4")
    pytester.runpytest_inprocess(*compared).assert_outcomes(passed=1)
    pytester.makepyfile(test_it=f"{PRELUDE}\n\n{code}".replace("lr=1e-2)\n", "lr=1.01e-2)\n"))
    result = pytester.runpytest_inprocess(*compared)
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r"E +regression: the loss of step \d+: .* apart by .*"])


def test_the_page_has_ten_examples_and_every_twin() -> None:
    """One line each for what is written by hand."""
    assert re.findall(r"^\*\*(\d+)\. ", TEXT, re.MULTILINE) == [str(number) for number in range(1, 11)]
    table = TEXT.split("| twin | exchanged")[1].split("\n\n")[0]
    assert [twin for twin in TWINS if f"`{twin}`" not in table] == []
