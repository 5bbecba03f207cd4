"""Text of any origin stays text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_overfit.report.markdown.escape import block, code, line, plain, prose, table, text
from tests.support.markdown import assert_well_formed, blocks, parse, shown, tables

HOSTILE = (
    "<script>alert(1)</script>",
    "a | b",
    "a\\|b",
    "`x` and ``y``",
    "[click](javascript:alert(1))",
    "![picture](https://example.org/x.png)",
    "*aggregator* _x_ __init__ ~~gone~~ $x$",
    "line one\nline two\r\n\r\n# heading",
    "&lt;b&gt; &#60;script&#62; AT&T",
    "1. one",
    "- dash",
    "> quote",
    "```\nfence",
    "\u202egnp.exe\u0000\x1b[31m",
    "trailing\\",
    "<!-- hidden -->",
    "损失 | 置信度",
)


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_text_is_shown_as_it_is(value: str) -> None:
    """In a cell, in a code span of a cell, and as a line of its own."""
    check(value)


@given(st.text(alphabet=st.one_of(st.sampled_from("|`\\*_[]()<>!&#;~$-+=.1a \n"), st.characters()), max_size=40))
def test_any_text_is_shown_as_it_is(value: str) -> None:
    """The same for whatever there is."""
    check(value)


def check(value: str) -> None:
    source = table(["a", "b", "c"], [[text(value), code(value), "end"]])
    assert_well_formed(source)
    (rows,) = tables(source)
    row = rows[1]
    assert row[0] == plain(value)
    assert row[2] == "end"
    if plain(value) and "|" not in value:
        assert row[1].strip() == plain(value)
    if plain(value):
        opened, inline, closed = parse(line(value))
        assert (opened.type, closed.type) == ("paragraph_open", "paragraph_close")
        assert shown(inline) == plain(value)


def test_the_check_can_fail() -> None:
    """Text that is not escaped breaks a table, or is HTML."""
    with pytest.raises(AssertionError):
        assert_well_formed("| a | b |\n| --- | --- |\n| x | y | z |")
    with pytest.raises(AssertionError):
        assert_well_formed("hello <script>alert(1)</script>")


def test_source_stays_readable() -> None:
    """What Markdown does not read is not escaped."""
    assert text("loss_camera 0.0005 < 0.001 (start 0.2)") == "loss_camera 0.0005 < 0.001 (start 0.2)"
    assert text("tests/test_a.py::test_b") == "tests/test_a.py::test_b"


def test_long_text_is_cut() -> None:
    """The record has all of it."""
    assert plain("x" * 1000) == "x" * 597 + "..."
    assert plain("x" * 1000, most=10) == "x" * 7 + "..."


def test_a_block_holds_a_block() -> None:
    """Its fence is longer than the one inside."""
    inner = "pytest -k 'a'\n```\n# no heading\n```"
    assert blocks(block(inner, "bash")) == [("bash", inner + "\n")]


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ('where it is meant, allow=["no-gradient:*x*"]', 'where it is meant, `allow=["no-gradient:*x*"]`'),
        ("frozen=['trunk.*'] | *it*", "`frozen=['trunk.*']` \\| \\*it\\*"),
        ("give it first: x.movedim(-1, 1), or [x]", "give it first: `x.movedim(-1, 1)`, or \\[x\\]"),
        ("use loss(net(x[0]), y) of (2, 3)", "use `loss(net(x[0]), y)` of (2, 3)"),
        ("a_ = b (c)", "a\\_ = b (c)"),
    ],
)
def test_what_is_pasted_out_of_a_sentence_is_code(sentence: str, shown: str) -> None:
    """Literally, without an escape; the words around it are escaped as ever."""
    assert prose(sentence) == shown
