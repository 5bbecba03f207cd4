"""Properties of a test case: flat, short, and readable without the record."""

from __future__ import annotations

from dataclasses import replace

from pytest_overfit.judge.finding import Finding
from pytest_overfit.report.ci.junit import user_properties
from pytest_overfit.report.record.document import Document
from pytest_overfit.result import OverfitResult
from tests.support.documents import broken, finished, healthy, two_view
from tests.support.records import record


def test_a_run_that_passed() -> None:
    """Verdict, steps, margin, and one property per criterion."""
    document = two_view()
    assert document.result is not None
    assert document.result.margin is not None
    values = user_properties(document)
    assert values[:4] == [
        ("overfit.verdict", "passed"),
        ("overfit.steps", str(document.result.record.steps)),
        ("overfit.margin", f"{document.result.margin:.3g}"),
        ("overfit.causes", ""),
    ]
    assert [name for name, _ in values[4:]] == [f"overfit.{finding.name}" for finding in document.findings]
    camera = document.result.finding("camera")
    assert ("overfit.camera", f"{camera.observed} < 0.001") in values
    assert ("overfit.defects", "none found") in values


def test_a_run_that_failed() -> None:
    """What was observed against what was allowed, and the causes."""
    document = broken("sgd_rate_of_twenty")
    assert document.result is not None
    values = dict(user_properties(document))
    assert values["overfit.verdict"] == "failed"
    assert values["overfit.causes"] == ", ".join(cause.id for cause in document.result.causes)
    finding = document.result.finding("finite")
    assert values["overfit.finite"] == f"FAILED: {finding.observed}, allowed {finding.allowed}"
    assert values["overfit.objective"] == f"not judged: {document.result.finding('objective').observed}"
    assert "overfit.margin" not in values


def test_a_limit_reads_as_a_comparison() -> None:
    """Literally."""
    camera = Finding("camera", True, "loss_camera 0.0007", "< 0.001 for 5 steps in a row", margin=1.43)
    values = dict(user_properties(finished("a.yaml", OverfitResult(record(), (camera,)))))
    assert values["overfit.camera"] == "loss_camera 0.0007 < 0.001"
    assert values["overfit.margin"] == "1.43"


def test_a_run_that_never_was() -> None:
    """Failed, with its state and its checks."""
    checks = (Finding("pair", False, "12 depths are NaN", "metres"),)
    assert user_properties(Document("a", "a.yaml", "s", "not_run", "", "", checks=checks)) == [
        ("overfit.verdict", "failed"),
        ("overfit.state", "not_run"),
        ("overfit.pair", "FAILED: 12 depths are NaN, allowed metres"),
    ]


def test_calls_of_one_test_are_told_apart() -> None:
    """The second has a name of its own."""
    names = [name for call in (1, 2) for name, _ in user_properties(replace(healthy(), call=call))]
    assert len(set(names)) == len(names)
    assert "overfit.call2.verdict" in names


def test_several_seeds_have_the_steps_of_the_slowest() -> None:
    """The budget has to allow for it."""
    document = healthy(seeds=(0, 1, 2))
    assert dict(user_properties(document))["overfit.steps"] == str(max(run.steps for run in document.records))


def test_text_is_one_line() -> None:
    """XML has no place for control signs."""
    finding = Finding("a\x00b", False, "x\ny\x1b[31m", "z")
    assert ("overfit.a b", "FAILED: x y [31m, allowed z") in user_properties(
        finished("a.yaml", OverfitResult(record(), (finding,)))
    )
