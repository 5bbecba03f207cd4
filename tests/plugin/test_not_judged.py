"""What was not judged is no pass under --overfit-strict."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugin.conftest import TinyConfig
from tests.plugin.strict_sessions import CPU, LEARNS, SHORT, session
from tests.support.sessions import outcomes

UNJUDGED = """
import dataclasses
import pytest_overfit.api
from pytest_overfit.errors.asking import NotAsked
from pytest_overfit.judge.finding import Finding

judged = pytest_overfit.api.judged

def unjudged(*args, **kwargs):
    verdict = judged(*args, **kwargs)
    rest = [finding for finding in verdict.findings if finding.name != "defects"]
    found = [Finding("defects", False, "a question broke", "", judged=False)] * {finding}
    asked = tuple(NotAsked(f"question {{i}}", "IndexError", ours=True) for i in range({mistakes}))
    return dataclasses.replace(verdict, findings=(*rest, *found), not_asked=asked)

pytest_overfit.api.judged = unjudged
"""


@pytest.fixture
def broken(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """A diagnosis that leaves ``defects`` unjudged, and makes mistakes of ours."""
    import pytest_overfit.api

    def make(finding: int, mistakes: int) -> None:
        monkeypatch.setattr(pytest_overfit.api, "judged", pytest_overfit.api.judged)
        pytester.makeconftest(UNJUDGED.format(finding=finding, mistakes=mistakes))

    return make


@pytest.mark.parametrize(("finding", "mistakes"), [(1, 0), (0, 1)])
def test_what_was_not_judged_fails_a_call(
    pytester: pytest.Pytester, broken: Callable[[int, int], None], finding: int, mistakes: int
) -> None:
    """In a strict session; else a mistake of ours is a note."""
    broken(finding, mistakes)
    lenient = session(pytester, LEARNS, args=())
    lenient.assert_outcomes(passed=1)
    if mistakes:
        lenient.stdout.fnmatch_lines(["note: not asked: question 0: IndexError; this is a mistake of *"])
    result = session(pytester, LEARNS)
    result.assert_outcomes(failed=1)
    why = "defects: a question broke" if finding else "not asked: question 0: IndexError*"
    result.stdout.fnmatch_lines([f"test_it.py::test_learns: it passed, and this was not judged: {why}"])


@pytest.mark.parametrize(
    ("finding", "mistakes", "chosen", "failed"),
    [(1, 2, "run or finite or defects", "defects"), (0, 2, "run or finite", "run"), (1, 0, "finite", "finite")],
)
def test_what_was_not_judged_fails_one_item(
    pytester: pytest.Pytester,
    tiny: TinyConfig,
    broken: Callable[[int, int], None],
    finding: int,
    mistakes: int,
    chosen: str,
    failed: str,
) -> None:
    """The item ``defects`` is skipped with its reason; a strict session fails it, or who made the run without it."""
    tiny()
    broken(finding, mistakes)
    args = ("--overfit-config=tiny.yaml", "-k", chosen, SHORT)
    passed = dict.fromkeys(chosen.split(" or "), "passed")
    skipped = {failed: "skipped"} if failed == "defects" else {}
    assert outcomes(pytester.runpytest_inprocess(*args)) == {**passed, **skipped}
    assert outcomes(pytester.runpytest_inprocess(*args, *CPU)) == {**passed, failed: "failed"}


def test_many_questions_are_five_lines(
    pytester: pytest.Pytester, tiny: TinyConfig, broken: Callable[[int, int], None]
) -> None:
    """And how many more."""
    tiny()
    broken(1, 7)
    result = pytester.runpytest_inprocess("--overfit-config=tiny.yaml", SHORT)
    assert sum(line.startswith("note: not asked: question ") for line in result.outlines) == 5
    result.stdout.fnmatch_lines(["note: not asked either: question 5, question 6"])
