"""A run as lines of text."""

from __future__ import annotations

import re

import pytest

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.markdown import tables
from pytest_overfit.text.table import call_line, criteria_table, run_headline, runs_line
from pytest_overfit.text.translations import translated, words
from tests.support.documents import broken, frozen_trunk, healthy, two_view
from tests.support.records import record


def test_the_headline_says_how_far_how_fast_on_what() -> None:
    """Steps, time, reason to stop, device, threads, seed, memory."""
    run = record(environment={"threads": "1", "precision": "float32"}, peak_mib=811.4)
    assert run_headline(run) == (
        "100 of 1000 steps in 2.0 s (20 ms a step), stopped early: every limit held; "
        "cpu, 1 thread, seed 0, 811 MiB peak"
    )


def test_the_line_of_a_call_names_the_cause_of_what_it_missed() -> None:
    """Where a terminal is too narrow for the short summary, this is what is read."""
    missed = Finding("objective", False, "objective 0.4 (start 1.8)", "< 0.01 for 5 steps in a row", margin=0.02)
    line = call_line([missed], [record()], [Cause("frozen", "", "", ""), Cause("lr-low", "", "", "")])
    assert line == "100 of 1000 steps in 2.0 s; missed objective; why: frozen; objective 0.4, allowed < 0.01"


def test_a_run_that_was_cut_short_shouts() -> None:
    """The reason stands in the headline, with the precision where it is not float32."""
    run = record(stop="max_seconds", environment={"threads": "2", "precision": "bfloat16"})
    assert "CUT SHORT by max_seconds; cpu, 2 threads, bfloat16, seed 0" in run_headline(run)


def test_a_finding_reads_in_three_parts() -> None:
    """Observed against allowed; where; what to try next; parts that are missing leave no empty line."""
    finding = Finding("camera", False, "loss_camera 0.04", "< 0.001", where="step 9 of 9", hint="lower the lr")
    assert finding.text() == ("camera: loss_camera 0.04, allowed < 0.001\n  where: step 9 of 9\n  next: lower the lr")
    assert Finding("camera", True, "0", "< 1").text() == "camera: 0, allowed < 1"


def test_a_margin_is_one_number_in_every_form() -> None:
    """Of the terminal and of the record; what was missed by little does not read as met."""
    missed = Finding("objective", False, "objective 0.01004", "< 0.01", margin=0.996)
    row = criteria_table([missed])[-1]
    assert row.endswith("  0.996x")
    assert " 0.996x " in tables.criteria_table([missed], words("en"))
    held = Finding("objective", False, "objective -0.1", "< 0.01", margin=float("inf"))
    assert criteria_table([held], lang="zh")[-1].endswith("低于 0")


def test_what_could_not_be_judged_for_one_reason_is_one_line() -> None:
    """In the place of its first; another reason has a line of its own, and a short terminal has fewer names."""
    why = "not judged: ::pair failed (no such file, /data/0001/a.exr)"
    behind = [Finding(name, False, why, "", judged=False) for name in ("loader", "run", "supervised", "finite")]
    alone = Finding("defects", False, "nothing was probed", "", judged=False)
    findings = [Finding("pair", False, "no such file", "valid files"), *behind, alone]
    assert criteria_table(findings) == [
        "verdict  criterion  observed  allowed  margin  since step",
        "FAILED   pair       no such file",
        f"skipped  loader, run, supervised and 1 more: {why}",
        "skipped  defects    nothing was probed",
    ]
    assert criteria_table(findings, width=60)[2] == "skipped  loader, run and 2 more: not judged: ::pair failed"


def test_several_runs_are_one_line() -> None:
    """The shortest and the longest of them."""
    runs = [(record(steps=steps, planned_steps=600, seconds=1.0), ()) for steps in (40, 90)]
    assert runs_line(runs) == "2 runs, 40 to 90 of 600 steps in 2.0 s"
    assert runs_line(runs[:1]) == run_headline(runs[0][0]).partition("; ")[0]


def test_a_text_that_does_not_fit_ends_in_no_number_and_dots() -> None:
    """Whole parts, and how many more there are; else whole words."""
    several = Finding("prediction", False, "frame 0 AbsRel 0.1203; frame 0 delta 0.8809; frame 1 AbsRel 0.8", "small")
    assert criteria_table([several], width=60)[1] == "FAILED   prediction  frame 0 AbsRel 0.1203; 2 more"
    one = Finding("monotonic", False, "objective climbs from its best of 0.1203 to 0.8809 at the end", "falls")
    assert criteria_table([one], width=60)[1] == "FAILED   monotonic  objective climbs from its best of..."


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("width", [60, 72, 80, 100, 120])
def test_no_cell_of_a_run_ends_in_a_number_and_dots(width: int, lang: str) -> None:
    """Nor in half a word; a number is never cut away from the limit that it is held against."""
    for document in (two_view(), frozen_trunk(), healthy(), broken("missing_step"), broken("sgd_rate_of_twenty")):
        for line in criteria_table(document.findings, width=width, lang=lang):
            assert not re.search(r"\d[%)]?( \w{1,3})?\.\.\.", line)
            for word in re.findall(r"([A-Za-z_]+)\.\.\.", line):
                assert any(re.search(rf"\b{word}\b", translated(each.observed, lang)) for each in document.findings)
        for finding in document.findings:
            shown = next((line for line in criteria_table([finding], width=width) if finding.name in line), "")
            number = re.match(r"\S+ (-?[\d.e-]+)", finding.observed)
            if number and finding.allowed.startswith(("<", ">")):
                assert number[1] in shown


def test_a_long_name_leaves_the_number_whole() -> None:
    """What does not fit beside it is left out, the last first."""
    long = "loss_of_a_term_with_a_long_name"
    one = Finding("a_criterion_with_a_long_name", False, f"{long} 0.123456 (start 3)", "< 0.001", margin=0.008)
    begin = f"FAILED   a_criterion_with_a_long_name  {long} 0.123456"
    assert [criteria_table([one], width=width)[1] for width in (80, 90, 100)] == [
        begin,
        f"{begin}  < 0.001",
        f"{begin}  < 0.001  0.008x",
    ]
