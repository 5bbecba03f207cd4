"""The summary of a session: what failed comes first, and it stays within what a CI service takes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.ci.summary import MOST_BYTES, summary_markdown
from pytest_overfit.report.markdown.curve import text_curve
from pytest_overfit.report.record.document import Change, Comparison, Document
from pytest_overfit.result import OverfitResult
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.text.table import run_headline
from tests.support.documents import broken, finished, healthy, two_view
from tests.support.markdown import assert_well_formed, blocks, headings, items, tables
from tests.support.records import record

HOSTILE = "tests/a.py::test_b[<script>alert(1)</script>|`x`\n# heading]"
GITHUB = 1024 * 1024  # bytes


def test_one_run_that_passed() -> None:
    """Headline, criteria, curve, command."""
    document = two_view()
    assert document.result is not None
    source = summary_markdown([document])
    assert_well_formed(source)
    assert headings(source) == ["## pytest-overfit: 1 run passed", "### passed: configs/tiny.yaml"]
    assert items(source)[0] == run_headline(document.result.record)
    (rows,) = tables(source)
    assert rows[0] == ["Verdict", "Criterion", "Observed", "Allowed", "Margin", "Since step"]
    assert source.count("<details>") == source.count("</details>") == 1
    for row, finding in zip(rows[1:], document.findings, strict=True):
        assert row[:4] == ["passed", finding.name, finding.observed, finding.allowed]
    (curve, command) = blocks(source)
    objective = document.result.record.curves["objective"]
    assert curve == ("text", "\n".join(["objective", *text_curve(objective, Limit(below=0.01)), ""]))
    assert command == ("bash", "pytest --overfit-config configs/tiny.yaml\n")
    assert source.index("<details>") < source.index(curve[1]) < source.index("</details>")


def test_the_curve_of_what_failed_is_open() -> None:
    """It is what shows the failure."""
    source = summary_markdown([broken("missing_step")])
    assert 0 < source.index("objective\n") < source.index("<details>")


def test_what_can_be_pasted_is_code() -> None:
    """As it stands: no sign of it is escaped."""
    failed = broken("missing_step")
    assert failed.result is not None
    cause = replace(failed.result.causes[0], advice="--overfit-set optim.frozen_module_names=[]")
    told = replace(failed, result=replace(failed.result, causes=(cause,)))
    assert "  - change: `--overfit-set optim.frozen_module_names=[]`\n" in summary_markdown([told])


def test_what_failed_comes_first() -> None:
    """With its causes and what to change."""
    failed = broken("missing_step")
    assert failed.result is not None
    source = summary_markdown([healthy(), two_view(), failed])
    assert_well_formed(source)
    assert headings(source) == [
        "## pytest-overfit: 1 of 3 runs failed",
        "### FAILED: tests/test_missing_step.py::test_learns",
        "### passed: tests/test_mlp_classification.py::test_learns",
        "### passed: configs/tiny.yaml",
    ]
    cause = failed.result.causes[0]
    told = items(source)
    assert f"no-step (shown): {cause.observed}" in told
    assert f"change: {cause.advice}" in told
    gradients = failed.result.finding("gradients")
    assert f"gradients: where: {gradients.where}" in told
    assert [row[0] for row in tables(source)[0][1:]].count("failed") == 2


def test_many_that_passed_are_one_table() -> None:
    """One row each, with the steps of its budget that it took."""
    document = two_view()
    assert document.result is not None
    run = document.result.record
    source = summary_markdown([replace(document, title=f"configs/{i}.yaml") for i in range(5)] + [broken("maximize")])
    assert_well_formed(source)
    assert headings(source) == [
        "## pytest-overfit: 1 of 6 runs failed",
        "### FAILED: tests/test_maximize.py::test_learns",
        "### 5 passed",
    ]
    rows = tables(source)[-1]
    assert len(rows) == 6
    assert rows[1] == [
        "configs/0.yaml",
        f"{run.steps} of {run.planned_steps}",
        f"{run.seconds:.1f} s",
    ]


def test_a_pass_without_a_gpu_shows_among_many() -> None:
    """A note of a run that has no section of its own."""
    source = summary_markdown([replace(two_view(), title=f"configs/{i}.yaml") for i in range(4)])
    (note,) = two_view().records[0].notes
    assert note.startswith("no GPU used")
    assert items(source) == [f"note: {note} (4 of these runs)"]


def test_several_seeds_and_a_comparison() -> None:
    """A row per seed, the curve of the worst, and what moved."""
    changes = (Change("steps to pass", 100, 160, 1.6, (1.5, 1.7), 3, True, allowed=1.5),)
    document = replace(healthy(seeds=(0, 1, 2)), comparison=Comparison("nightly", "2026-03-01", changes))
    source = summary_markdown([document])
    assert_well_formed(source)
    seeds, compared, held = tables(source)  # what holds is folded, at the end
    assert {row[0] for row in held[1:]} == {"passed"}
    assert [row[0] for row in seeds[1:]] == ["0", "1", "2"]
    assert compared[1] == ["steps to pass", "100", "160", "1.6x", "1.5x – 1.7x", "3", "over the 1.5x that was allowed"]
    assert blocks(source)[0][1].startswith("objective, seed 0, which did worst\n")


def test_runs_without_an_end() -> None:
    """State and error, and the curve as far as it went."""
    partly = record(steps=2, curves={"objective": (4.0, 2.0)}, stop="interrupted")
    killed = replace(finished("k.yaml", OverfitResult(partly, ())), state="killed", error="killed after 60 s")
    nothing = Document("n", "n.yaml", "s", "not_run", "", "", error="ImportError: vggt")
    source = summary_markdown([killed, nothing])
    assert_well_formed(source)
    assert headings(source)[0] == "## pytest-overfit: 2 of 2 runs failed"
    assert "**Killed**: killed after 60 s" in source
    assert "**Not run**: ImportError: vggt" in source
    assert [line for line in blocks(source)[0][1].splitlines() if line] == [
        "objective",
        *(line for line in text_curve([4.0, 2.0]) if line),
    ]


def test_nothing_at_all() -> None:
    """No run is no pass."""
    assert summary_markdown([]) == "## pytest-overfit: no run\n"


def test_what_is_no_number_is_marked() -> None:
    """On the axis of the curve."""
    run = record(steps=3, curves={"objective": (4.0, math.nan, 2.0)})
    source = summary_markdown([finished("a.yaml", OverfitResult(run, (Finding("finite", False, "NaN", "finite"),)))])
    assert "x  not finite" in source


def test_hostile_text_does_nothing() -> None:
    """Titles, findings, causes, notes, commands."""
    finding = Finding(HOSTILE, False, HOSTILE, HOSTILE, where=HOSTILE, hint=HOSTILE)
    result = OverfitResult(
        record(notes=(HOSTILE,)), (finding,), causes=(Cause("x", HOSTILE, HOSTILE, HOSTILE, "shown"),)
    )
    compared = Comparison(HOSTILE, HOSTILE, (Change(HOSTILE, 1, 1, 1, (1, 1), 0, False),), note=HOSTILE)
    source = summary_markdown(
        [finished(HOSTILE, result, command=f"{HOSTILE}\n```", error=HOSTILE, comparison=compared)]
    )
    assert_well_formed(source)
    shown = "tests/a.py::test_b[<script>alert(1)</script>|`x` # heading]"
    assert headings(source) == ["## pytest-overfit: 1 of 1 run failed", f"### FAILED: {shown}"]


def test_it_stays_within_the_limit_of_github() -> None:
    """Thousands of failed runs: cut, with a line on what was left out."""
    source = summary_markdown([replace(broken("maximize"), title=f"runs/{i}.yaml") for i in range(1000)])
    assert MOST_BYTES * 0.99 < len(source.encode()) < GITHUB
    assert_well_formed(source[-20_000:].partition("\n### ")[2])
    last = source.rstrip().rpartition("\n")[2]
    kept = source.count("\n### FAILED")
    assert kept < 1000
    assert last.startswith(f"Left out, since a summary has at most 1 MiB: runs/{kept}.yaml, ")
    assert last.endswith(f" and {1000 - kept - 20} more. The report folder has all of it.")


def test_a_table_that_is_too_long_is_cut_too() -> None:
    """Rows are left out, never half of one."""
    passed = [replace(healthy(), title=f"tests/test_{'损失' * 80}_{i}.py") for i in range(200)]
    source = summary_markdown(passed, most_bytes=20_000)
    assert len(source.encode()) <= 20_000
    assert_well_formed(source)
    rows = tables(source)[0][1:]
    assert 0 < len(rows) < 200
    assert f"{200 - len(rows)} more passed." in source


@pytest.mark.parametrize("most", [500, 2_000, 5_000])
def test_any_limit_is_kept(most: int) -> None:
    """However little there is room for."""
    source = summary_markdown([broken("maximize"), two_view(), healthy()], most_bytes=most)
    assert len(source.encode()) <= most
    assert_well_formed(source)
    assert "Left out" in source


def test_what_was_interrupted_is_counted_for_itself() -> None:
    """It has neither failed nor passed."""
    cut = [finished(f"t.py::t[{at}]", None, state="interrupted", error="ended by SIGTERM") for at in range(2)]
    counted = [
        headings(summary_markdown(documents))[0]
        for documents in (cut, [*cut, healthy()], [*cut, broken("missing_step")])
    ]
    told = ["2 runs interrupted", "1 of 3 runs passed; 2 interrupted", "1 of 3 runs failed; 2 interrupted"]
    assert counted == [f"## pytest-overfit: {each}" for each in told]
    assert summary_markdown(cut, lang="zh").startswith("## pytest-overfit: 2 次运行被中断")


def test_an_error_keeps_its_lines() -> None:
    """What says most first, then all of it, as it was raised."""
    error = "RuntimeError: no\n  shapes: mse_loss of (8, 4), (8,)\n  where: a.py:3"
    source = summary_markdown([finished("t.py::t", None, error=error)])
    assert "**mse_loss of (8, 4), (8,): no**" in source
    assert ("text", f"{error}\n") in blocks(source)
