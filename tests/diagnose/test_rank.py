"""Ranking: pure, one cause per id, proven before shown before observed, and only certain ones of a passing run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pytest_overfit.diagnose.cause import Cause, Strength
from pytest_overfit.diagnose.defects import judge_defects
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.rank import find_causes
from pytest_overfit.diagnose.trial import Attempt, Trial
from pytest_overfit.errors.asking import NotAsked
from pytest_overfit.judge.finding import Finding
from pytest_overfit.judge.limits import OUT_OF_TIME
from pytest_overfit.run.record import RunRecord
from pytest_overfit.text.failure import headline

RECORD = RunRecord("net", 0, "cpu", 10, 10, "max_steps", 1.0, {"objective": (1.0,) * 10})
FAILED = Evidence(RECORD, (Finding("objective", False, "", ""),), {})
PASSED = replace(FAILED, findings=(Finding("objective", True, "", ""),))


def cause(name: str, strength: Strength, weight: float, *, certain: bool = False) -> Cause:
    return Cause(f"mine.{name}", "here", "seen", "change it", strength, certain=certain, weight=weight)


def gives(*causes: Cause) -> list[object]:
    def rule(evidence: Evidence) -> Iterator[Cause]:
        yield from causes

    return [rule]


def ids(evidence: Evidence, *causes: Cause, allowed: tuple[str, ...] = ()) -> list[str]:
    found = find_causes(evidence, rules=gives(*causes), allowed=allowed)  # type: ignore[arg-type]
    return [c.id.removeprefix("mine.") for c in found if c.id.startswith("mine.")]


def test_proven_before_shown_before_observed() -> None:
    """Whatever their weights."""
    given = cause("c", "observed", 0.89), cause("b", "shown", 0.5), cause("a", "proven", 0.1)
    assert ids(FAILED, *given) == ["a", "b", "c"]


def test_what_is_counted_stands_beside_what_is_proven() -> None:
    """A step that is never made is not second to a learning rate that happens to get around it."""
    assert ids(FAILED, cause("rate", "proven", 0.7), cause("no-step", "shown", 0.98)) == ["no-step", "rate"]
    assert ids(FAILED, cause("rate", "proven", 0.7), cause("guess", "shown", 0.89)) == ["rate", "guess"]


def test_one_cause_per_id_the_stronger() -> None:
    """Two rules may see the same thing."""
    found = find_causes(FAILED, rules=gives(cause("a", "shown", 0.2), cause("a", "proven", 0.2)))  # type: ignore[arg-type]
    assert [(c.id, c.strength) for c in found] == [("mine.a", "proven")]


def test_what_takes_back_the_advice_of_a_stronger_cause_is_left_out() -> None:
    """A learning rate is not both too high and too low, and a run that is held up needs no more steps."""
    high, low = Cause("lr-high", "", "", "", "proven"), Cause("lr-low", "", "", "", "shown")
    found = find_causes(FAILED, rules=gives(low, high, Cause("few-steps", "", "", "", "observed")))  # type: ignore[arg-type]
    assert [each.id for each in found] == ["lr-high"]
    guesses = (Cause(name, "", "", "", "observed") for name in ("lr-high", "few-steps"))
    found = find_causes(FAILED, rules=gives(*guesses))  # type: ignore[arg-type]
    assert [each.id for each in found] == ["lr-high", "few-steps"]


def test_of_a_passing_run_only_what_is_certain() -> None:
    """And nothing that is allowed."""
    given = cause("sure", "shown", 0.5, certain=True), cause("maybe", "proven", 0.9)
    assert ids(PASSED, *given) == ["sure"]
    assert ids(PASSED, *given, allowed=("mine.sure",)) == []


def test_nothing_is_found_where_nothing_is_known() -> None:
    """An empty evidence of a failed run has no cause."""
    assert find_causes(FAILED) == ()


@pytest.mark.parametrize(
    ("name", "missed", "passed"),
    [("unused", (), False), ("unused", ("gradients",), True), ("input-ignored", ("gradients",), False)],
)
def test_defects_are_not_told_twice(name: str, missed: tuple[str, ...], passed: bool) -> None:
    """What another criterion fails the run for is told there."""
    found = judge_defects([Cause(name, "x", "seen", "change", "shown", certain=True)], missed=missed)
    assert found.passed is passed


def test_a_defect_names_its_way_out() -> None:
    """The text, literally."""
    finding = judge_defects([Cause("leak", "tokens", "the future is seen", "mask it", "shown", certain=True)])
    assert finding.text() == (
        "defects: leak: the future is seen, allowed no mistake that is certain\n"
        "  where: tokens\n"
        "  next: mask it; if it is meant, declare it: allow=['leak:tokens']"
    )
    assert judge_defects([Cause("leak", "a, b", "seen", "mend it", certain=True)]).text().endswith("allow=['leak']")
    assert judge_defects([], allow=["leak"]).observed == "none found; declared: leak allowed"
    unlooked = judge_defects([], unlooked="the run was interrupted")
    assert (unlooked.judged, unlooked.passed, unlooked.observed) == (False, False, "not asked: the run was interrupted")
    refused, broken = NotAsked("the order", "the model refuses it"), NotAsked("the floor", "IndexError: 0", ours=True)
    assert judge_defects([], not_asked=[refused]).observed == "none found; 1 question not asked"
    ours = judge_defects([], not_asked=[refused, broken])
    assert (ours.judged, ours.observed) == (
        False,
        "not asked: the floor: IndexError: 0; this is a mistake of pytest-overfit's: please report it",
    )


@pytest.mark.parametrize(
    ("where", "allow", "named"),
    [
        ("txt_ids", ["degenerate-batch:txt_ids"], False),
        ("txt_ids", ["degenerate-batch:img_*"], True),
        ("txt_ids, image", ["degenerate-batch:txt_ids"], True),
        ("txt_ids, image", ["degenerate-batch:txt_ids", "degenerate-batch:image"], False),
        ("module block.attention, model.py:12", ["degenerate-batch:block.*"], False),
        ("pooler.weight, pooler.bias and 3 more", ["degenerate-batch:pooler.*"], False),
        ("txt_ids", ["leak:txt_ids"], True),
        ("txt_ids", ["degenerate-batch"], False),
    ],
)
def test_what_is_meant_at_one_place_is_a_mistake_at_another(where: str, allow: list[str], named: bool) -> None:
    """Every place that a cause names has to be declared."""

    def rule(evidence: Evidence) -> list[Cause]:
        return [Cause("degenerate-batch", where, "all zero", "look", certain=True)]

    causes = find_causes(FAILED, rules=[rule], allowed=allow)
    assert [cause.id for cause in causes] == (["degenerate-batch"] if named else [])


@pytest.mark.parametrize(("stop", "passed_at", "strength"), [
    ("max_seconds", 140, "observed"), ("max_seconds", 8, "proven"), ("max_steps", 140, "proven"),
])  # fmt: skip
def test_a_run_without_time_is_told_no_proven_rate(stop: Any, passed_at: int, strength: str) -> None:
    """A trial that needed more steps than the run had proves nothing of its rate, and its first line is the cut."""
    seen = Finding("objective", False, f"{OUT_OF_TIME}: 10 of 1000 steps in 3.0 s, objective 1", "< 0.01")
    attempt = Attempt(Trial("learning rate", 1e-3, 1e-2), (1.0,) * passed_at, passed_at, "passed")
    cut = replace(FAILED, record=replace(RECORD, stop=stop), findings=(seen,), attempts=(attempt,))
    found = find_causes(cut)
    assert [(c.id, c.strength) for c in found if c.id == "lr-low"] == [("lr-low", strength)]
    alone = headline([seen], [c for c in found if c.id == "lr-low"])
    assert (alone == "cut short by max_seconds: 10 of 1000 steps in 3.0 s, objective 1, allowed < 0.01") is (
        strength == "observed"
    )
