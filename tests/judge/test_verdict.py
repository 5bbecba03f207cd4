"""All criteria of a record."""

from __future__ import annotations

from dataclasses import replace

from pytest_overfit.judge.train_val import TrainVal
from pytest_overfit.judge.verdict import accepts, judge
from pytest_overfit.run.record import Evaluation
from pytest_overfit.settings.criteria import Criteria
from tests.support.records import record


def test_judge_gives_one_finding_per_criterion_in_order() -> None:
    """All criteria, in the order in which a config's items stand; switched-off ones are absent.

    The last, defects, takes more than a record to judge.
    """
    criteria = Criteria(in_config=True, train_val=TrainVal(), camera=None)
    findings = judge(record(), criteria)
    assert [*(finding.name for finding in findings), "defects"] == list(criteria.names())
    assert "camera" not in criteria.names()
    assert all(finding.passed for finding in findings)


def test_a_run_ends_where_all_that_is_awaited_holds() -> None:
    """Predictions and evaluation are awaited where they are asked for; nothing else is."""
    first, second = record().predictions
    off = record(predictions=(first, replace(second, abs_rel=0.5)))
    worse = record(evaluation=Evaluation({"objective": 0.005}, {"objective": 0.9}))
    asked = Criteria(in_config=True, train_val=True)
    assert accepts(record(), asked)
    assert not accepts(off, asked)
    assert not accepts(worse, asked)
    assert accepts(off, Criteria(in_config=True, prediction=False))
    assert accepts(worse, Criteria(in_config=True))
    assert accepts(record(non_finite=None, steps=0, stop="max_steps"), Criteria())
