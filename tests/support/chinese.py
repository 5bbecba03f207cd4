"""What is said of a cause, in Chinese."""

from __future__ import annotations

import re

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.judge.finding import is_line
from pytest_overfit.text.translations import translated

ENGLISH = re.compile(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}")


def assert_chinese(cause: Cause) -> None:
    """What was seen, where, and what to change: no English sentence is left, and no number is lost."""
    assert re.search("[\u4e00-\u9fff]", translated(cause.observed, "zh")), cause.observed
    for text in (cause.observed, cause.where, *([] if is_line(cause.advice) else [cause.advice])):
        said = translated(text, "zh")
        assert not ENGLISH.search(said), said
        assert sorted(re.findall(r"\d+", said)) == sorted(re.findall(r"\d+", text))
