"""The runs that a test has asked for, and what it has looked at of their results."""

from __future__ import annotations

import gc
import inspect
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.errors.asking import spoken

if TYPE_CHECKING:
    from pytest_overfit.judge.finding import Finding
    from pytest_overfit.result import OverfitResult

# What says why a run has not passed; ``check`` does so by what it raises, findings where one that missed is among them.
ASKED = frozenset({"failure_text", "causes"})


@dataclass
class TrackedRun:
    """One run that a test has asked for.

    Args:
        missed: what its verdict misses; None: it came to no verdict.
        ended: the error that ended it before a verdict.
        seen: the test has looked at the verdict, or expects what was raised.
        raised: an AssertionError has told the test.
        glanced: the test has asked whether it passed, and may have let it be.
        error: what ended it, until a report has shown it.
    """

    missed: tuple[str, ...] | None = None
    ended: str = ""
    seen: bool = False
    raised: bool = False
    glanced: bool = False
    error: BaseException | None = None

    def came_to(self, verdict: OverfitResult) -> None:
        """Keeps what the run was judged to be."""
        missed = tuple(finding.name for finding in verdict.findings if finding.missed)
        self.missed = missed if verdict.passed else missed or ("every criterion",)

    @property
    def lost(self) -> bool:
        """It misses something, and the test has not looked."""
        return bool(self.missed) and not self.seen and not self.glanced

    @property
    def judged(self) -> bool:
        """It came to a verdict, or to an error that the test expects."""
        return self.missed is not None or self.seen


@contextmanager
def tracked(runs: list[TrackedRun]) -> Iterator[TrackedRun]:
    """Around a run of these: what it raises is seen where the test has said that it expects that."""
    run = TrackedRun()
    runs.append(run)
    try:
        yield run
    except BaseException as error:
        run.raised, run.seen, run.ended, run.error = True, _is_expected(error), spoken(error), error
        raise


def tracked_result(verdict: OverfitResult, run: TrackedRun) -> OverfitResult:
    """The verdict as a test gets it: whether it has asked what was judged is kept."""
    from pytest_overfit.result import OverfitResult

    class Tracked(OverfitResult):
        def __getattribute__(self, name: str) -> Any:
            if name in ASKED:
                run.seen = True
            if name == "passed":
                run.glanced = True
            if name == "findings":
                return _findings_of(verdict, run)
            if name == "finding":
                return partial(_finding_of, verdict, run)
            return (
                super().__getattribute__(name) if name.startswith("__") or name == "check" else getattr(verdict, name)
            )

        def __repr__(self) -> str:
            return repr(verdict)

        def check(self) -> None:
            __tracebackhide__ = True
            try:
                verdict.check()
            except AssertionError as error:
                run.raised, run.seen, run.error = True, run.seen or _is_expected(error), error
                raise

    Tracked.__qualname__ = Tracked.__name__ = OverfitResult.__name__
    return Tracked(**{each.name: getattr(verdict, each.name) for each in fields(verdict)})


class _Findings(tuple["Finding", ...]):
    """Findings of a run, which is seen once the test has gone through all of them, or has taken one that missed.

    ``any(finding.passed for finding in findings)`` ends at the first that passes, and has not seen the others.
    """

    run: TrackedRun

    def __iter__(self) -> Iterator[Finding]:
        yield from super().__iter__()
        self.run.seen = True

    def __reversed__(self) -> Iterator[Finding]:
        yield from super().__getitem__(slice(None, None, -1))
        self.run.seen = True

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        chosen = found if isinstance(place, slice) else (found,)
        self.run.seen |= any(finding.missed for finding in chosen)
        return found


def _findings_of(verdict: OverfitResult, run: TrackedRun) -> _Findings:
    findings = _Findings(verdict.findings)
    findings.run = run
    return findings


def _finding_of(verdict: OverfitResult, run: TrackedRun, name: str) -> Finding:
    finding = verdict.finding(name)
    run.seen |= finding.missed
    return finding


def _is_expected(error: BaseException) -> bool:
    """Whether a ``pytest.raises`` or an ``assertRaises`` that takes this error is open now.

    Nothing on the stack tells of a ``with``; but the object behind it is alive, and has not been told of an error yet.
    The call form of pytest before 8.4 has no such object: it stands on the stack.
    """
    if _is_called_for(error):
        return True
    raises = type(pytest.raises(BaseException))
    asserts = type(unittest.TestCase("id").assertRaises(BaseException))  # noqa: PT027 - theirs
    for each in gc.get_objects():
        kind = type(each)
        wanted: Any = BaseException
        if kind is raises:
            info: Any = each.excinfo
            wanted = getattr(each, "expected_exceptions", ()) or getattr(each, "expected_exception", wanted)
            is_open = info is not None and str(info).startswith("<ExceptionInfo for raises")
        elif kind is asserts:
            wanted, is_open = each.expected, not hasattr(each, "exception")
        else:
            continue
        if is_open and isinstance(error, wanted):
            return True
    return False


def _is_called_for(error: BaseException) -> bool:
    """Whether ``pytest.raises(kind, function)`` is calling what has raised."""
    code, frame = pytest.raises.__code__, inspect.currentframe()
    while frame is not None:
        if frame.f_code is code and isinstance(error, frame.f_locals.get("expected_exception", ())):
            return True
        frame = frame.f_back
    return False
