"""A run that hung: one criterion is missed for it, and nothing else is judged."""

from __future__ import annotations

from pytest_overfit.judge.stopped import judge_hung
from pytest_overfit.judge.train_val import TrainVal
from pytest_overfit.judge.verdict import judge
from pytest_overfit.run.record import Hang
from pytest_overfit.run.stack_lines import hung_in
from pytest_overfit.settings.criteria import Criteria, Limit
from pytest_overfit.text.failure import headline
from pytest_overfit.text.table import run_headline
from pytest_overfit.two_view.frame_criteria import Prediction
from tests.support.records import falling, record

HANG = Hang(2.0, 4.0, "training", "loss at test_a.py:7: q.get()", ("loss at test_a.py:7: q.get()",))


def test_one_fault_is_one_failure() -> None:
    """The first limit says what hangs and where; the others point there and are neither passed nor missed."""
    findings = judge(record(stop="hung", hung=HANG), Criteria(in_config=True))
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


def test_a_run_that_its_time_ended_says_so_once() -> None:
    """The first limit tells it within a line; what only more steps could have shown is not judged, and points there."""
    run = record(stop="max_seconds", curves={name: falling(4.0, 0.5) for name in record().curves})
    findings = judge(run, Criteria(in_config=True, train_val=TrainVal(), prediction=Prediction(), camera=Limit(0.001)))
    missed = [finding for finding in findings if finding.missed]
    assert [finding.name for finding in missed] == ["objective"]
    assert headline(missed, ()) == "cut short by max_seconds: 100 of 1000 steps in 2.0 s, objective 0.5, allowed < 0.01"
    assert {finding.echo_of for finding in findings if not finding.judged} == {"objective"}
    assert {"camera", "prediction"} <= {finding.name for finding in findings if not finding.judged}
    assert {"finite", "gradients"} <= {finding.name for finding in findings if finding.passed}


def test_what_a_library_computes_is_no_line_that_hangs() -> None:
    """An operation of torch may be slow; a line of the user's is named."""
    assert hung_in("backward at /venv/lib/python3/site-packages/torch/autograd/graph.py:979: return run()") == ""
    assert hung_in("hang at test_it.py:9: queue.get()") == ", hung in hang at test_it.py:9: queue.get()"
