"""Golden curves: the losses of a run, step by step, against those that were saved on the same platform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.report.record.document import Document
from pytest_overfit.report.record.golden import first_losses
from pytest_overfit.report.record.regression import regression
from pytest_overfit.report.record.saved import compare, parse_allowed, path_of, read_saved, saved_of, write_saved
from tests.report.record.runs import document, result

ALLOWED = parse_allowed(["curve:1e-4"])


def with_losses(*losses: float) -> Document:
    made = result()
    curves: Mapping[str, tuple[float, ...]] = {**made.record.curves, "objective": losses}
    return document(replace(made, record=replace(made.record, curves=curves, steps=len(losses))))


def test_the_same_losses_hold_and_others_are_told_by_their_step(tmp_path: Path) -> None:
    """Written, read, compared; a run that is shorter is compared as far as it goes."""
    golden = with_losses(1.0, 0.5, 0.25, 0.125)
    path = write_saved(path_of(tmp_path, "main"), saved_of("main", [golden], when="now"))
    saved = read_saved(path)
    for losses, step in (((1.0, 0.5, 0.25, 0.125), None), ((1.0, 0.50001), None), ((1.0, 0.501, 0.3), 2)):
        one = with_losses(*losses)
        assert one.result is not None
        finding = regression(compare(saved, one.title, one.call, one.result, ALLOWED))
        assert finding.passed == (step is None), finding.text()
        assert step is None or finding.observed == "the loss of step 2: 0.5 -> 0.501, apart by 0.002 of it"
        assert finding.allowed == "curve <= 0.0001"


def test_another_platform_keeps_its_own() -> None:
    """Saved under the same name, it is kept; where there is none, what there is is told."""
    one = with_losses(1.0, 0.5)
    assert one.result is not None
    (here,) = first_losses(one.result)
    saved = saved_of("main", [one], when="now")
    elsewhere = replace(saved, runs=(replace(saved.runs[0], golden={"a MacBook": (1.0, 0.4)}),))
    with pytest.raises(OverfitError) as told:
        compare(elsewhere, one.title, one.call, one.result, ALLOWED)
    assert here in str(told.value)
    assert "a MacBook" in str(told.value)
    both = saved_of("main", [one], when="later", before=elsewhere)
    assert set(both.runs[0].golden) == {"a MacBook", here}
    assert regression(compare(both, one.title, one.call, one.result, ALLOWED)).passed


def test_without_being_asked_for_it_is_no_quantity() -> None:
    """Ratios alone, as before."""
    one = with_losses(1.0, 0.5)
    assert one.result is not None
    saved = saved_of("main", [one], when="now")
    assert "curve" not in [change.quantity for change in compare(saved, one.title, one.call, one.result).changes]
