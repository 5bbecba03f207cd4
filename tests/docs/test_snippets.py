"""Every ``python`` block of docs/forms.md is a test file that does what the page says."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.sessions import keep_modules

PAGE = Path(__file__).resolve().parents[2] / "docs" / "forms.md"
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
MOST_LINES = 3


@dataclass(frozen=True)
class Snippet:
    """One block; ``fails`` is the criterion that it has to miss."""

    code: str
    fails: str | None

    @property
    def tests(self) -> list[ast.FunctionDef]:
        functions = [node for node in ast.parse(self.code).body if isinstance(node, ast.FunctionDef)]
        return [function for function in functions if function.name.startswith("test_")]


def read_page(text: str) -> tuple[str, list[Snippet]]:
    """The prelude, and the blocks after it.

    Raises:
        ValueError: the first block is no prelude, or a mark is unknown.
    """
    blocks = [(match["mark"], match["code"]) for match in BLOCK.finditer(text)]
    if not blocks or blocks[0][0] != "prelude":
        raise ValueError("the first block has to be marked <!-- prelude -->")
    snippets = []
    for mark, code in blocks[1:]:
        word, _, criterion = (mark or "").partition(": ")
        if mark is not None and (word != "fails" or not criterion):
            raise ValueError(f"an unknown mark: {mark}")
        snippets.append(Snippet(code, criterion or None))
    return blocks[0][1], snippets


PRELUDE, SNIPPETS = read_page(PAGE.read_text())


def name_of(snippet: Snippet) -> str:
    return snippet.tests[0].name if snippet.tests else "no_test"


@pytest.fixture(autouse=True)
def sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions inside the test keep torch."""
    keep_modules(monkeypatch)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=name_of)
def test_snippet_does_what_the_page_says(pytester: pytest.Pytester, snippet: Snippet) -> None:
    """It passes, or misses the criterion of its mark."""
    check_snippet(pytester, snippet)


def check_snippet(pytester: pytest.Pytester, snippet: Snippet) -> None:
    pytester.makepyfile(f"{PRELUDE}\n\n{snippet.code}")
    result = pytester.runpytest_inprocess("--strict-markers", "-p", "no:randomly")
    if snippet.fails is None:
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(failed=1)
        result.stdout.re_match_lines([r"E +\d+ of \d+ criteria missed", rf"E +{snippet.fails}: "])


@pytest.mark.parametrize(("limit", "fails"), [("1e-30", None), ("0.05", "objective"), ("1e-30", "finite")])
def test_a_snippet_that_does_something_else_is_found(pytester: pytest.Pytester, limit: str, fails: str | None) -> None:
    """One that fails unmarked, one that passes in spite of its mark, one that misses another criterion."""
    call = f"overfit(net, batch, nn.CrossEntropyLoss(), objective={limit}, max_steps=300)"
    snippet = Snippet(f"def test_it(overfit, batch):\n    {call}\n", fails)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_snippet(pytester, snippet)


README = PAGE.parents[1] / "README.md"


def test_the_first_test_of_the_readme_passes(pytester: pytest.Pytester) -> None:
    """As it stands there."""
    code = next(match["code"] for match in BLOCK.finditer(README.read_text()) if "def test_" in match["code"])
    pytester.makepyfile(code)
    pytester.runpytest_inprocess("--strict-markers", "-p", "no:randomly").assert_outcomes(passed=1)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=name_of)
def test_snippet_keeps_the_promise_of_the_title(snippet: Snippet) -> None:
    """One test, with at most three lines: the marker, the ``def``, and what is under it."""
    (test,) = snippet.tests
    first = min([test.lineno, *(decorator.lineno for decorator in test.decorator_list)])
    assert test.end_lineno is not None
    assert test.end_lineno - first + 1 <= MOST_LINES


def test_every_section_has_a_block() -> None:
    """No heading without a test under it."""
    sections = PAGE.read_text().split("\n## ")[1:]
    assert len(sections) == 12
    assert [section.splitlines()[0] for section in sections if "```python" not in section] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```python\na = 1\n```\n", "prelude"),
        ("<!-- prelude -->\n```python\na = 1\n```\n<!-- breaks -->\n```python\na = 1\n```\n", "unknown mark: breaks"),
    ],
)
def test_a_page_that_is_marked_wrongly_is_refused(text: str, told: str) -> None:
    """A misspelt mark would turn a test that has to fail into one that has to pass."""
    with pytest.raises(ValueError, match=told):
        read_page(text)
