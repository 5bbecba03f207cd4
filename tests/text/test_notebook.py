"""A result in a notebook: verdict, cause and curve, and nothing of the user's that is HTML."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.judge.finding import Finding
from pytest_overfit.result import OverfitResult
from tests.support.records import record

CAUSE = Cause("frozen", "<b>head</b>", "2 of 4 tensors are frozen; passes", "a.py:3: head.requires_grad_(True)")


def test_a_failure_shows_its_cause_and_curve() -> None:
    """As XML, so every sign of the user's is escaped."""
    finding = Finding("objective", False, "objective 0.5 (start 2)", "< 0.01 for 5 steps")
    run = record(steps=3, curves={"objective": (2.0, math.nan, 0.5)})
    shown = OverfitResult(run, (finding,), causes=(CAUSE,))._repr_html_()
    tree = ElementTree.fromstring(shown.replace("<br>", "<br/>"))
    text = "".join(tree.itertext())
    assert text.startswith("FAILED objective 0.5, allowed < 0.01: 2 of 4 tensors are frozen")
    assert "where: <b>head</b>" in text
    assert "change: a.py:3: head.requires_grad_(True)" in text
    line = tree.find(".//polyline")
    assert line is not None
    assert line.get("points") == "4.0,4.0 476.0,116.0"


def test_a_pass_says_how_far_the_run_went() -> None:
    """Without a curve there is no picture."""
    shown = OverfitResult(record(steps=3, curves={}), (Finding("finite", True, "all", ""),))._repr_html_()
    assert ">passed</b> 3 of" in shown
    assert "<svg" not in shown


def test_a_result_is_one_line_in_a_debugger() -> None:
    result = OverfitResult(record(steps=3), (Finding("objective", False, "1.2", "< 0.01"),), causes=(CAUSE,))
    assert repr(result).startswith("<OverfitResult failed: 3 of ")
    assert CAUSE.id in repr(result)
    assert "\n" not in repr(result)
