"""Every ``python`` block of docs/trainers.md is a test file that does what the page says."""

from __future__ import annotations

import pytest

from tests.docs.test_snippets import PAGE, Snippet, name_of, read_page
from tests.support.sessions import keep_modules

pytest.importorskip("pytorch_lightning")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

PRELUDE, SNIPPETS = read_page(PAGE.with_name("trainers.md").read_text())


@pytest.mark.parametrize("snippet", SNIPPETS, ids=name_of)
def test_snippet_does_what_the_page_says(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, snippet: Snippet
) -> None:
    """It passes, or misses the criterion of its mark."""
    keep_modules(monkeypatch)
    pytester.makepyfile(f"{PRELUDE}\n\n{snippet.code}")
    result = pytester.runpytest_inprocess("--strict-markers", "-p", "no:randomly", "-W", "ignore")
    if snippet.fails is None:
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(failed=1)
        result.stdout.re_match_lines([rf"E +{snippet.fails}: "])


def test_each_part_of_the_page_has_a_block() -> None:
    """No heading without a test under it."""
    parts = PAGE.with_name("trainers.md").read_text().split("\n## ")[1:]
    assert len(parts) == 3
    assert all("```python" in part for part in parts)
