"""Tests whose runs were not checked: a marked test that judged nothing, and a miss that nobody saw, fail."""

from __future__ import annotations

import inspect
import unittest
from collections.abc import Sequence

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.plugin.requester import marker_layer, markers_of
from pytest_overfit.plugin.state import ItemState, item_state
from pytest_overfit.plugin.tracked_result import TrackedRun

CALL, RESULT = "overfit", "overfit_result"
# What a test may look at under the config that its marker names, without a run.
DATA = frozenset(f"overfit_{name}" for name in ("config", "pair", "dataset", "loader", "batch", "val_batch"))
SEVERAL = "of several tries one is enough: seeds=[0, 1, 2], pass_at_least=1"


def fail_unchecked(item: pytest.Item, *, strict: bool = False) -> None:
    """Fails a test, whose body is done, that has judged nothing or has lost a miss; the line to add is told.

    Raises:
        pytest.fail.Exception: it is one.
    """
    if _expects_failure(item):  # unittest has caught what was raised, and fails a test that does not
        return
    problem = _problem(item, item_state(item), strict=strict)
    if problem is not None:
        raise pytest.fail.Exception(str(problem), pytrace=False)


def told_by(state: ItemState, error: BaseException | None) -> None:
    """A report of the test, or of a subtest of it, shows this error: the run that it comes from is told."""
    for run in state.runs:
        if error is not None and run.error is error:
            run.seen = True


def hidden_miss(item: pytest.Item) -> OverfitError | None:
    """What is wrong with a test that skips itself, or calls itself an expected failure, after a run has missed."""
    missed = next((run.missed for run in item_state(item).runs if run.missed), None)
    if missed is None or _expects_failure(item):
        return None
    return OverfitError(
        f"its run misses {', '.join(missed)}, and the test has skipped itself since",
        where=item.nodeid,
        allowed="a test that decides before its run whether it is skipped",
        hint="let the AssertionError through; where the miss is known: @pytest.mark.xfail on the test",
    )


def glanced_miss(item: pytest.Item) -> OverfitError | None:
    """What a strict session has against a test that has read ``passed``, which is False, and passed all the same.

    Whether it asserted that, or printed it, cannot be told.
    """
    runs = item_state(item).runs
    missed = next((run.missed for run in runs if run.missed and run.glanced and not run.seen), None)
    if missed is None:
        return None
    return OverfitError(
        f"its run misses {', '.join(missed)}, and the test has read .passed and passed all the same",
        where=item.nodeid,
        allowed="a miss that fails the test, or that the test names",
        hint=f"overfit_result.check(); where it is meant: assert overfit_result.finding({missed[0]!r}).missed",
    )


def fail_report(item: pytest.Item, report: pytest.TestReport, problem: OverfitError) -> None:
    """Turns a report into a failure, shown as pytest shows one without a traceback."""
    try:
        raise pytest.fail.Exception(str(problem), pytrace=False)
    except pytest.fail.Exception:
        report.longrepr = item.repr_failure(pytest.ExceptionInfo.from_current())
    report.outcome = "failed"
    vars(report).pop("wasxfail", None)


def _expects_failure(item: pytest.Item) -> bool:
    """Whether it is a test with ``@unittest.expectedFailure``, on itself or on its class."""
    marked = (getattr(item, "obj", None), getattr(item, "cls", None))
    return any(getattr(each, "__unittest_expecting_failure__", False) for each in marked)


def _problem(item: pytest.Item, state: ItemState, *, strict: bool) -> OverfitError | None:
    if not state.fixtures and not _must_judge(item, state, strict=strict):
        return None
    for run in state.runs:
        if run.lost and run.missed is not None:
            return _lost(item, run, run.missed)
    if any(run.judged for run in state.runs):
        return None
    ended = next((run for run in state.runs if run.ended), None)
    if ended is not None:
        return OverfitError(
            f"its run ended without a verdict, and the test passed all the same: {ended.ended}",
            where=item.nodeid,
            allowed="a run that comes to a verdict",
            hint="let the error through; where it is meant: with pytest.raises(...)",
        )
    has_call = CALL in state.fixtures
    found = "the overfit fixture was never called" if has_call else "marked overfit, and nothing was run"
    return OverfitError(
        f"no run came to a verdict in this test: {found}",
        where=item.nodeid,
        allowed="at least one run that comes to a verdict",
        hint=_line_to_add(item, has_call=has_call),
    )


def _lost(item: pytest.Item, run: TrackedRun, missed: Sequence[str]) -> OverfitError:
    return OverfitError(
        f"its run misses {', '.join(missed)}, and the test passed all the same",
        where=item.nodeid,
        allowed="a miss that fails the test, or that the test says it expects",
        hint=f"let the AssertionError through; where it is meant: with pytest.raises(AssertionError); {SEVERAL}"
        if run.raised
        else "add the line: overfit_result.check(); where the miss is meant: "
        f"assert overfit_result.finding({missed[0]!r}).missed",
    )


def _must_judge(item: pytest.Item, state: ItemState, *, strict: bool) -> bool:
    """A test with the marker; not one with a fixture of its own in the place of ours, or that only looks at data."""
    names = getattr(item, "fixturenames", ())
    if state.file is not None or markers_of(item) is None or not {CALL, RESULT}.isdisjoint(names):
        return False
    return strict or not _names_config(item) or DATA.isdisjoint(names)


def _names_config(item: pytest.Item) -> bool:
    layer = marker_layer(markers_of(item))
    return layer is not None and layer.config is not None


def _line_to_add(item: pytest.Item, *, has_call: bool) -> str:
    function = getattr(item, "function", None)
    names = [*inspect.signature(function).parameters] if function is not None else []
    if has_call:
        return "add the line: overfit(model, batch, loss)"
    if isinstance(getattr(item, "instance", None), unittest.TestCase):
        return '@pytest.mark.usefixtures("overfit") on the class, and in the test: self.overfit(model, batch, loss)'
    fixture, line = (RESULT, "overfit_result.check()") if _names_config(item) else (CALL, "overfit(model, batch, loss)")
    return f"def {getattr(item, 'originalname', item.name)}({', '.join([*names, fixture])}): {line}"
