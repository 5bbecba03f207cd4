"""What a test makes of its runs: a marked test that judged nothing, and a miss that nobody saw, fail it."""

from __future__ import annotations

import gc
import inspect
import unittest
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import spoken

if TYPE_CHECKING:
    from pytest_overfit.judge.finding import Finding
    from pytest_overfit.result import OverfitResult

CALL, RESULT = "overfit", "overfit_result"
# What a test may look at under the config that its marker names, without a run.
DATA = frozenset(f"overfit_{name}" for name in ("config", "pair", "dataset", "loader", "batch", "val_batch"))
# What says why a run has not passed; ``check`` does so by what it raises, findings where one that missed is among them.
ASKED = frozenset({"failure_text", "causes"})
SEVERAL = "of several tries one is enough: seeds=[0, 1, 2], pass_at_least=1"


@dataclass
class Run:
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


@dataclass
class Verdicts:
    """The runs of one test, and the fixtures of ours that it was given."""

    fixtures: dict[str, None] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    @contextmanager
    def run(self) -> Iterator[Run]:
        """Around a run: what it raises is seen where the test has said that it expects that."""
        run = Run()
        self.runs.append(run)
        try:
            yield run
        except BaseException as error:
            run.raised, run.seen, run.ended, run.error = True, _is_expected(error), spoken(error), error
            raise


KEY = pytest.StashKey[Verdicts]()


def verdicts_of(item: pytest.Item, fixture: str) -> Verdicts:
    """The runs of a test that is given this fixture."""
    kept = item.stash.setdefault(KEY, Verdicts())
    kept.fixtures[fixture] = None
    return kept


def handed(verdict: OverfitResult, run: Run) -> OverfitResult:
    """The verdict as a test gets it: whether it has asked what was judged is kept."""
    from pytest_overfit.result import OverfitResult

    class Handed(OverfitResult):
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

    Handed.__qualname__ = Handed.__name__ = OverfitResult.__name__
    return Handed(**{each.name: getattr(verdict, each.name) for each in fields(verdict)})


class _Findings(tuple["Finding", ...]):
    """Findings of a run, which is seen once the test has gone through all of them, or has taken one that missed.

    ``any(finding.passed for finding in findings)`` ends at the first that passes, and has not seen the others.
    """

    run: Run

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


def _findings_of(verdict: OverfitResult, run: Run) -> _Findings:
    findings = _Findings(verdict.findings)
    findings.run = run
    return findings


def _finding_of(verdict: OverfitResult, run: Run, name: str) -> Finding:
    finding = verdict.finding(name)
    run.seen |= finding.missed
    return finding


def refuse_unjudged(item: pytest.Item, *, strict: bool = False) -> None:
    """Fails a test, whose body is done, that has judged nothing or has lost a miss; the line to add is told.

    Raises:
        pytest.fail.Exception: it is one.
    """
    if _expects_failure(item):  # unittest has caught what was raised, and fails a test that does not
        return
    kept = item.stash.get(KEY, None)
    problem = _problem(item, kept or Verdicts(), strict=strict)
    if problem is not None:
        raise pytest.fail.Exception(str(problem), pytrace=False)


def told_by(item: pytest.Item, error: BaseException | None) -> None:
    """A report of the test, or of a subtest of it, shows this error: the run that it comes from is told."""
    for run in item.stash[KEY].runs if KEY in item.stash else ():
        if error is not None and run.error is error:
            run.seen = True


def hidden_miss(item: pytest.Item) -> OverfitError | None:
    """What is wrong with a test that skips itself, or calls itself an expected failure, after a run has missed."""
    missed = next((run.missed for run in item.stash[KEY].runs if run.missed), None) if KEY in item.stash else None
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
    runs = item.stash[KEY].runs if KEY in item.stash else ()
    missed = next((run.missed for run in runs if run.missed and run.glanced and not run.seen), None)
    if missed is None:
        return None
    return OverfitError(
        f"its run misses {', '.join(missed)}, and the test has read .passed and passed all the same",
        where=item.nodeid,
        allowed="a miss that fails the test, or that the test names",
        hint=f"overfit_result.check(); where it is meant: assert overfit_result.finding({missed[0]!r}).missed",
    )


def refuse(item: pytest.Item, report: pytest.TestReport, problem: OverfitError) -> None:
    """Turns a report into a failure, shown as pytest shows one without a traceback."""
    try:
        raise pytest.fail.Exception(str(problem), pytrace=False)
    except pytest.fail.Exception:
        report.longrepr = item.repr_failure(pytest.ExceptionInfo.from_current())
    report.outcome = "failed"
    vars(report).pop("wasxfail", None)


def forget(item: pytest.Item) -> None:
    """A rerun of the test starts its own list."""
    if KEY in item.stash:
        del item.stash[KEY]


def _expects_failure(item: pytest.Item) -> bool:
    """Whether it is a test with ``@unittest.expectedFailure``, on itself or on its class."""
    marked = (getattr(item, "obj", None), getattr(item, "cls", None))
    return any(getattr(each, "__unittest_expecting_failure__", False) for each in marked)


def _problem(item: pytest.Item, kept: Verdicts, *, strict: bool) -> OverfitError | None:
    if not kept.fixtures and not _must_judge(item, strict=strict):
        return None
    for run in kept.runs:
        if run.lost and run.missed is not None:
            return _lost(item, run, run.missed)
    if any(run.judged for run in kept.runs):
        return None
    ended = next((run for run in kept.runs if run.ended), None)
    if ended is not None:
        return OverfitError(
            f"its run ended without a verdict, and the test passed all the same: {ended.ended}",
            where=item.nodeid,
            allowed="a run that comes to a verdict",
            hint="let the error through; where it is meant: with pytest.raises(...)",
        )
    asked = CALL if CALL in kept.fixtures else ""
    found = "the overfit fixture was never called" if asked else "marked overfit, and nothing was run"
    return OverfitError(
        f"no run came to a verdict in this test: {found}",
        where=item.nodeid,
        allowed="at least one run that comes to a verdict",
        hint=_line_to_add(item, has_call=bool(asked)),
    )


def _lost(item: pytest.Item, run: Run, missed: Iterable[str]) -> OverfitError:
    return OverfitError(
        f"its run misses {', '.join(missed)}, and the test passed all the same",
        where=item.nodeid,
        allowed="a miss that fails the test, or that the test says it expects",
        hint=f"let the AssertionError through; where it is meant: with pytest.raises(AssertionError); {SEVERAL}"
        if run.raised
        else "add the line: overfit_result.check(); where the miss is meant: "
        f"assert overfit_result.finding({next(iter(missed))!r}).missed",
    )


def _must_judge(item: pytest.Item, *, strict: bool) -> bool:
    """A test with the marker; not one with a fixture of its own in the place of ours, or that only looks at data."""
    names = getattr(item, "fixturenames", ())
    if item.get_closest_marker("overfit") is None or not {CALL, RESULT}.isdisjoint(names):
        return False
    from pytest_overfit.plugin.collection import ConfigItem, marker_layer

    if isinstance(item, ConfigItem):
        return False
    layer = marker_layer(item)
    return strict or layer is None or layer.config is None or DATA.isdisjoint(names)


def _line_to_add(item: pytest.Item, *, has_call: bool) -> str:
    from pytest_overfit.plugin.collection import marker_layer

    function = getattr(item, "function", None)
    names = [*inspect.signature(function).parameters] if function is not None else []
    if has_call:
        return "add the line: overfit(model, batch, loss)"
    if isinstance(getattr(item, "instance", None), unittest.TestCase):
        return '@pytest.mark.usefixtures("overfit") on the class, and in the test: self.overfit(model, batch, loss)'
    layer = marker_layer(item) if item.get_closest_marker("overfit") is not None else None
    under_config = layer is not None and layer.config is not None
    fixture, line = (RESULT, "overfit_result.check()") if under_config else (CALL, "overfit(model, batch, loss)")
    return f"def {getattr(item, 'originalname', item.name)}({', '.join([*names, fixture])}): {line}"


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
