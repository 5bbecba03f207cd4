"""A run that hung: one criterion is missed for it, and nothing else is judged."""

from __future__ import annotations

from pytest_overfit.judge.criteria import judge
from pytest_overfit.judge.hang import judge_hung
from pytest_overfit.run.record import Hang
from pytest_overfit.settings.criteria import Criteria
from pytest_overfit.text.table import run_headline
from tests.support.records import record

HANG = Hang(2.0, 4.0, "training", "loss at test_a.py:7: q.get()", ("loss at test_a.py:7: q.get()",))


def test_one_fault_is_one_failure() -> None:
    """The first limit says what hangs and where; the others point there and are neither passed nor missed."""
    findings = judge(record(stop="hung", hung=HANG), Criteria())
    missed = [finding for finding in findings if finding.missed]
    assert [finding.name for finding in missed] == ["objective"]
    assert (
        missed[0]
        .text()
        .startswith(
            "objective: HUNG: did not come back within 2 s (training): loss at test_a.py:7: q.get(), "
            "allowed to come back within max_seconds (2 s)"
        )
    )
    assert not any(finding.passed for finding in findings)
    assert {finding.observed for finding in findings} - {missed[0].observed} == {
        "not judged: the run hung, see objective"
    }


def test_without_a_limit_the_first_criterion_is_missed() -> None:
    """There is no way to a verdict without a failure in it."""
    findings = judge_hung(record(stop="hung", hung=HANG), ["finite", "gradients"], {})
    assert [finding.missed for finding in findings] == [True, False]


def test_the_headline_names_the_line() -> None:
    """The stop of a hung run is the line that hangs."""
    assert "HUNG: did not come back within 2 s (training): loss at test_a.py:7: q.get();" in run_headline(
        record(stop="hung", hung=HANG)
    )
