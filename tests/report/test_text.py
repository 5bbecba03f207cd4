"""A run as lines of text."""

from __future__ import annotations

from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.text import run_headline
from tests.support.records import record


def test_the_headline_says_how_far_how_fast_on_what() -> None:
    """Steps, time, reason to stop, device, threads, seed, memory."""
    run = record(environment={"threads": "1", "precision": "float32"}, peak_mib=811.4)
    assert run_headline(run) == (
        "100 of 1000 steps in 2.0 s (20 ms a step), stopped early: every limit held; "
        "cpu, 1 thread, seed 0, 811 MiB peak"
    )


def test_a_run_that_was_cut_short_shouts() -> None:
    """The reason stands in the headline, with the precision where it is not float32."""
    run = record(stop="max_seconds", environment={"threads": "2", "precision": "bfloat16"})
    assert "CUT SHORT by max_seconds; cpu, 2 threads, bfloat16, seed 0" in run_headline(run)


def test_a_finding_reads_in_three_parts() -> None:
    """Observed against allowed; where; what to try next; parts that are missing leave no empty line."""
    finding = Finding("camera", False, "loss_camera 0.04", "< 0.001", where="step 9 of 9", hint="lower the lr")
    assert finding.text() == ("camera: loss_camera 0.04, allowed < 0.001\n  where: step 9 of 9\n  next: lower the lr")
    assert Finding("camera", True, "0", "< 1").text() == "camera: 0, allowed < 1"
