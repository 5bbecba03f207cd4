"""The experiment record of runs that were never made, broke off or are strange."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.errors import OverfitError
from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.report.markdown.experiment import experiment_record
from pytest_overfit.report.markdown.tables import loss_rows
from pytest_overfit.report.record.document import Pair, PairView
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.record import FreezeMatch, NonFinite
from tests.support.documents import finished, healthy, unstarted
from tests.support.markdown import assert_well_formed, blocks, headings, items, tables, values_of
from tests.support.records import record

HOSTILE = "tests/a.py::test_b[<script>alert(1)</script>|`x`\n# heading]"


@pytest.mark.parametrize(
    ("steps", "per", "expected"),
    [
        (0, 4, []),
        (1, None, [(1, 1, True)]),
        (3, 4, [(1, 3, True)]),
        (40, 4, [(1, 4, False), (10, 40, True)]),
        (175, 4, [(1, 4, False), (10, 40, False), (44, 175, True)]),
        (100, None, [(1, 1, False), (10, 10, False), (50, 50, False), (100, 100, True)]),
    ],
)
def test_only_rows_that_exist(steps: int, per: int | None, expected: list[tuple[int, int, bool]]) -> None:
    """1, 10, 50, 100 and the last, each once."""
    assert [(row.number, row.step, row.last) for row in loss_rows(steps, per)] == expected


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_nothing_was_run(lang: str) -> None:
    """The error, and no verdict but failed."""
    checks = (Finding("pair", False, "a.exr: 12 depths are NaN", "metres", hint="repair it"),)
    source = experiment_record(unstarted(checks=checks), lang)
    assert_well_formed(source)
    said = values_of(source, 0)
    assert "ImportError: no module named 'vggt'" in said.values()
    assert {"en": "failed", "zh": "未通过"}[lang] in said.values()
    assert {"en": "Nothing was trained.", "zh": "未进行任何训练。"}[lang] in source
    assert {"en": "Next step: repair it", "zh": "下一步：repair it"}[lang] in source


def test_nothing_is_known() -> None:
    """Not even a finding: it says so, and to run it again."""
    source = experiment_record(unstarted(error=None))
    assert_well_formed(source)
    assert "- Did the model overfit the sample? Not known." in source
    assert "Next step: run it again to the end." in source


@pytest.mark.parametrize(
    ("state", "said"), [("killed", "The run was killed after 42 steps"), ("running", "still going")]
)
def test_a_part_of_a_run(state: Any, said: str) -> None:
    """Curves so far, no findings, no verdict."""
    run = record(steps=42, curves={"objective": record().curves["objective"][:42]}, stop="interrupted", evaluation=None)
    document = replace(finished("a.yaml", OverfitResult(run, ())), state=state)
    source = experiment_record(document)
    assert_well_formed(source)
    assert said in source
    assert tables(source)[2][-1] == ["42 (last)", number(run.curves["objective"][41])]
    assert values_of(source, 0)["Verdict"] == "failed"


def test_no_step_at_all() -> None:
    """Killed before the first."""
    run = record(steps=0, curves={}, learning_rate=(), grad_norms={}, evaluation=None, stop="interrupted")
    source = experiment_record(replace(finished("a.yaml", OverfitResult(run, ())), state="killed"))
    assert_well_formed(source)
    assert "No step was recorded." in source


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_shown(bad: float) -> None:
    """In the table of losses, and in the observations."""
    curve = (*record().curves["objective"][:41], bad)
    run = record(steps=42, curves={"objective": curve}, non_finite=NonFinite(42, "loss", "head.norm"), evaluation=None)
    source = experiment_record(finished("a.yaml", OverfitResult(run, ())))
    assert_well_formed(source)
    assert tables(source)[2][-1] == ["42 (last)", number(bad)]
    assert "First NaN or infinity: loss, step 42, module head.norm" in items(source)
    assert "Did the loss fall? No: from 4 (step 1)" in source


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_hostile_names_do_nothing(lang: str) -> None:
    """Titles, images, notes, findings, causes and commands of any origin."""
    finding = Finding(HOSTILE, False, HOSTILE, HOSTILE, where=HOSTILE, hint=HOSTILE)
    cause = Cause("lr-high", HOSTILE, HOSTILE, HOSTILE, "proven")
    run = record(notes=(HOSTILE,), freeze_matches=(FreezeMatch(HOSTILE, 1, 2),), device=HOSTILE)
    document = finished(
        HOSTILE,
        OverfitResult(run, (finding,), causes=(cause,)),
        pair=Pair(HOSTILE, (PairView(HOSTILE, HOSTILE, 1, 2),)),
        command=f"pytest '{HOSTILE}'\n```\n# not a heading",
        environment={HOSTILE: HOSTILE},
        error=HOSTILE,
    )
    source = experiment_record(document, lang)
    assert_well_formed(source)
    shown = "tests/a.py::test_b[<script>alert(1)</script>|`x` # heading]"
    assert headings(source)[0] == {"en": f"# Experiment record: {shown}", "zh": f"# 实验记录：{shown}"}[lang]
    assert len(headings(source)) == 10
    assert len(blocks(source)) == 2  # the error, which has two lines, and the command


def test_an_unknown_language_is_refused() -> None:
    """Before anything is made."""
    with pytest.raises(OverfitError, match="no texts in 'fr'"):
        experiment_record(healthy(), "fr")
